"""C2PA manifests of edited photos, signed by a certificate that is made here."""

from __future__ import annotations

import datetime
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from click.testing import CliRunner
from PIL import Image

from csvae_hub.cli import main
from csvae_hub.editing import Signer, read_manifest, read_mark
from csvae_hub.editing.xmp import SOURCE_TYPE
from csvae_hub.errors import MissingExtraError

PORTRAIT = Path(__file__).resolve().parents[2] / "examples/astronaut-512.png"
KINDS = {".jpg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".tif": "TIFF", ".gif": "GIF", ".avif": "AVIF"}


@pytest.fixture(scope="module")
def pem(tmp_path_factory):
    """A certificate with the one that vouches for it, its key, and a key of another."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    folder, now = tmp_path_factory.mktemp("pem"), datetime.datetime.now(datetime.timezone.utc)
    own, root, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))

    def certificate(subject, key, is_root):
        names = [
            x509.Name([x509.NameAttribute(field, text) for field in (NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME)])
            for text in (subject, "Test root")
        ]
        usage = [not is_root, False, False, False, False, is_root, is_root, False, False]
        built = (
            x509.CertificateBuilder(names[1], names[0], key.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(is_root, None), critical=True)
            .add_extension(x509.KeyUsage(*usage), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key()), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        )
        return built.sign(root, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def written(key):
        plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        return key.private_bytes(serialization.Encoding.PEM, *plain)

    (folder / "chain.pem").write_bytes(certificate("Tester", own, False) + certificate("Test root", root, True))
    (folder / "key.pem").write_bytes(written(own))
    (folder / "other.pem").write_bytes(written(other))
    return folder


@pytest.fixture(scope="module")
def signer(pem):
    return Signer(pem / "chain.pem", pem / "key.pem")


def action_of(manifest):
    active = manifest["manifests"][manifest["active_manifest"]]
    assert active["signature_info"]["issuer"] == "Tester"
    (actions,) = (one["data"]["actions"] for one in active["assertions"] if one["label"].startswith("c2pa.actions"))
    assert [one["action"] for one in actions] == ["c2pa.opened", "c2pa.edited"]
    return actions[1]


@pytest.mark.parametrize("suffix", KINDS)
def test_every_kind_is_signed_and_read_back(signer, tmp_path, suffix):
    path = tmp_path / f"edited{suffix}"
    Image.open(PORTRAIT).convert("RGB").save(path)
    assert read_manifest(path) is None
    with Image.open(path) as before:
        pixels = before.convert("RGB").tobytes()
    signer.sign(path, KINDS[suffix], PORTRAIT, "model celeba-64; Smiling=1")
    manifest = read_manifest(path)
    assert manifest["validation_state"] == "Valid"
    action = action_of(manifest)
    assert action["digitalSourceType"] == SOURCE_TYPE
    assert (action["softwareAgent"]["name"], action["description"]) == ("csvae-hub", "model celeba-64; Smiling=1")
    with Image.open(path) as after:
        assert after.convert("RGB").tobytes() == pixels


def test_a_file_that_is_changed_after_signing_is_found_out_and_an_older_manifest_stays(signer, tmp_path):
    first, second = tmp_path / "first.jpg", tmp_path / "second.jpg"
    for path, source in ((first, PORTRAIT), (second, first)):
        Image.open(PORTRAIT).convert("RGB").save(path)
        signer.sign(path, "JPEG", source, "model x")
    assert len(read_manifest(second)["manifests"]) == 2
    spoilt = bytearray(second.read_bytes())
    spoilt[-100] ^= 1
    second.write_bytes(spoilt)
    assert read_manifest(second)["validation_state"] == "Invalid"
    path = tmp_path / "third.jpg"
    Image.open(PORTRAIT).convert("RGB").save(path)
    signer.sign(path, "JPEG", second, "model x")  # whose own manifest is broken
    assert read_manifest(path)["manifests"]


def test_the_command_line_signs_what_it_changes(pem, tmp_path):
    def run(*arguments, code=0):
        result = CliRunner().invoke(main, [*map(str, arguments)])
        assert result.exit_code == code, result.output
        return result

    options = ("--certificate", pem / "chain.pem", "--key", pem / "key.pem")
    out = tmp_path / "out.jpg"
    run("edit", PORTRAIT, "Eyeglasses=1", "-o", out, *options)
    shown = json.loads(run("info", out, "--json").stdout)
    action = action_of(shown["c2pa"])
    assert action["description"] == read_mark(out)["edits"][0]["parameters"] == "model celeba-128; Eyeglasses=1.0"
    assert "C2PA        by Tester; Valid" in run("info", out).stdout
    run("edit", PORTRAIT, "Smiling=True", "-o", tmp_path / "same.png", *options)  # it smiles already
    assert read_manifest(tmp_path / "same.png") is None
    result = run("edit", PORTRAIT, "Eyeglasses=1", "-o", tmp_path / "out.bmp", *options)
    assert "mark of an edited photo, C2PA manifest" in result.stderr
    for wrong in (options[:2], options[2:], (*options, "--no-mark")):
        assert "give both" in run("edit", PORTRAIT, "Smiling=1", "-o", out, *wrong, code=2).stderr
    result = run("edit", PORTRAIT, "Smiling=1", "-o", out, *options[:3], pem / "other.pem", code=2)
    assert "--certificate: expected a certificate that may sign documents, with its chain, and its key" in result.stderr


@pytest.mark.parametrize("files", [("key.pem", "key.pem"), ("chain.pem", "chain.pem"), ("chain.pem", "other.pem")])
def test_what_cannot_sign_is_refused_before_anything_is_edited(pem, files):
    with pytest.raises(
        ValueError, match="^expected a certificate that may sign documents, with its chain, and its key"
    ):
        Signer(*(pem / name for name in files))


def test_without_c2pa_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "c2pa", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'csvae-hub\[provenance\]'"):
        Signer(PORTRAIT, PORTRAIT)


def test_nothing_that_a_picture_names_is_fetched(signer, tmp_path):
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/manifest.c2pa"
        about = (
            f'<rdf:Description rdf:about="" xmlns:dcterms="http://purl.org/dc/terms/" dcterms:provenance="{address}"/>'
        )
        xmp = (
            '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF'
            f' xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">{about}</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
        )
        photo, edited = tmp_path / "photo.jpg", tmp_path / "edited.jpg"
        for path in (photo, edited):
            Image.open(PORTRAIT).convert("RGB").save(path, xmp=xmp.encode())
        assert read_manifest(photo) is None
        signer.sign(edited, "JPEG", photo, "model x")
        server.shutdown()
    assert not asked
