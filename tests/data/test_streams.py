"""The same pictures as a folder, as parquet files and as shards: the same data."""

from __future__ import annotations

import csv
import gc
import io
import json
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import webdataset
from PIL import Image
from safetensors.torch import load_file

from csvae_hub.cli import main
from csvae_hub.data import has_split, load_data, pictures, streams
from csvae_hub.errors import DataError, MissingExtraError, UnknownAttributeError

datasets.disable_progress_bars()

NAMES = ("Smiling", "Hat")
TRAIN, VALID = range(60), range(60, 75)
FEATURES = {"image": datasets.Image(), "Smiling": datasets.Value("bool"), "Hat": datasets.Value("int8")}


def png(i: int, width: int = 20, height: int = 17) -> bytes:
    pixels = np.random.default_rng(i).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def labels(i: int) -> tuple[bool | None, int | None]:
    return (None if i % 7 == 3 else i % 2 == 0, None if i % 11 == 5 else int(i % 3 == 0))


def write_folder(folder: Path) -> None:
    (folder / "images").mkdir(parents=True)
    with (folder / "attributes.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "split", *NAMES])
        for i in (*TRAIN, *VALID):
            (folder / "images" / f"{i:03}.png").write_bytes(png(i))
            cells = ["" if value is None else int(value) for value in labels(i)]
            table.writerow([f"{i:03}.png", "train" if i in TRAIN else "valid", *cells])


def write_parquet(folder: Path) -> None:
    folder.mkdir()
    for name, rows in (("train", TRAIN), ("validation", VALID)):
        columns = {name: [labels(i)[k] for i in rows] for k, name in enumerate(NAMES)}
        files = [{"bytes": png(i), "path": f"{i:03}.png"} for i in rows]
        made = datasets.Dataset.from_dict({"image": files, **columns}, datasets.Features(FEATURES))
        for part in range(3):
            shard = made.shard(3, part, contiguous=True)
            shard.to_parquet(folder / f"{name}-{part:05}-of-00003.parquet", batch_size=7)


def write_shards(folder: Path) -> None:
    folder.mkdir()
    for name, rows in (("train", TRAIN), ("val", VALID)):
        with webdataset.ShardWriter(str(folder / f"{name}-%06d.tar"), maxcount=25, verbose=0) as shards:
            for i in rows:
                known = {a: value for a, value in zip(NAMES, labels(i), strict=True) if value is not None or i % 2}
                shards.write({"__key__": f"{i:03}", "png": png(i), "json": json.dumps(known).encode()})


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    write_folder(folder / "folder")
    write_parquet(folder / "parquet")
    write_shards(folder / "shards")
    return folder


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CSVAE_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")


SPECS = ("hf:{}/parquet", "wds:{}/shards", "wds:{}/shards/{{split}}-*.tar")


@pytest.mark.parametrize("spec", [*SPECS, "hf:{}/shards"])
@pytest.mark.parametrize("split", ["train", "valid", "all"])
def test_the_data_is_that_of_the_folder(sources, spec, split):
    found = load_data(spec.format(sources), split=split, image_size=16)
    expected = load_data(sources / "folder", split=split, image_size=16)
    assert found.fingerprint == expected.fingerprint  # pixels, labels, names and files, in this order
    assert isinstance(found.images, np.memmap)
    chosen, grey = load_data(spec.format(sources), ["Hat"], split, 16), load_data(spec.format(sources), channels=1)
    np.testing.assert_array_equal(chosen.labels, expected.labels[:, 1:])
    assert grey.shape == (1, 64, 64)


@pytest.mark.parametrize("spec", SPECS)
def test_splits(sources, spec):
    spec = spec.format(sources)
    assert [has_split(spec, split) for split in ("train", "valid", "test")] == [True, True, False]
    with pytest.raises(DataError, match=r"has no split 'test'.* Splits here: train, valid"):
        load_data(spec, split="test")


def test_one_file_is_one_split(sources):
    file = f"hf:{sources}/parquet/train-00001-of-00003.parquet"
    assert load_data(file, image_size=16).files == [f"{i:03}.png" for i in TRAIN[20:40]]
    assert not has_split(file, "valid")
    shards = f"wds:{sources}/shards/train-{{000000..000001}}.tar"
    assert load_data(shards, image_size=16).files == [f"{i:03}.png" for i in TRAIN[:50]]
    assert not has_split(shards, "valid")


@pytest.mark.parametrize("spec", ["hf:{}/parquet", "wds:{}/shards/{{split}}-{{000000..000000}}.tar"])
def test_a_training_run_is_that_of_the_folder(sources, spec, tmp_path):
    small = ["trainer.epochs=2", "trainer.batch_size=16", "model.shape=[3,16,16]", "model.z_dim=4"]
    small += ["model.backbone.width=4", "model.backbone.features=8", 'model.attributes=["Smiling", "Hat"]']
    weights = []
    if "shards" in spec:  # the first shard of each split, as a folder
        rows = (sources / "folder/attributes.csv").read_text().splitlines(keepends=True)
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder/attributes.csv").write_text("".join([*rows[:26], *rows[61:]]))
        (tmp_path / "folder/images").symlink_to(sources / "folder/images")
    folder = tmp_path / "folder" if "shards" in spec else sources / "folder"
    for name, data in (("streamed", spec.format(sources)), ("folder", str(folder))):
        options = [word for change in small for word in ("--set", change)]
        main(
            ["train", "--recipe", "paper-faces", "--data", data, "-o", str(tmp_path / name), *options],
            standalone_mode=False,
        )
        weights.append(load_file(tmp_path / name / "model/model.safetensors"))
        assert len(list((tmp_path / name / "grids").glob("*.png"))) == 2  # of the valid split
    assert all(value.equal(weights[1][name]) for name, value in weights[0].items())


def test_class_columns_give_an_attribute_a_class(tmp_path):
    names = {"emotion": ["sad", "happy", "calm"], "glasses": ["no", "yes"], "level": ["low", "sad"]}
    features = {name: datasets.ClassLabel(names=classes) for name, classes in names.items()}
    features |= {"img": datasets.Image(), "thumb": datasets.Image(), "id": datasets.Value("int64")}
    rows = {"emotion": [0, 1, 2, -1], "glasses": [1, 0, None, 1], "level": [0, 1, 1, 0], "id": [7, 8, 9, 10]}
    rows |= {name: [{"bytes": png(i), "path": None} for i in range(4)] for name in ("img", "thumb")}
    datasets.Dataset.from_dict(rows, datasets.Features(features)).to_parquet(tmp_path / "faces.parquet")
    data = load_data(f"hf:{tmp_path}/faces.parquet", image_size=16)
    assert data.attributes == ("emotion.sad", "happy", "calm", "glasses", "low", "level.sad")
    nan = np.nan
    expected = [[1, 0, 0, 1, 1, 0], [0, 1, 0, 0, 0, 1], [0, 0, 1, nan, 0, 1], [nan, nan, nan, 1, 1, 0]]
    np.testing.assert_array_equal(data.labels, expected)
    assert data.files is None
    assert data.exclusive([["emotion.sad", "happy", "calm"]]).labels[0].tolist() == expected[0]
    with pytest.raises(DataError, match="column 'id': expected true or false, 0 or 1, -1 or 1, or nothing .* got 7"):
        load_data(f"hf:{tmp_path}/faces.parquet", ["id"], image_size=16)
    with pytest.raises(UnknownAttributeError, match="did you mean 'happy'"):
        load_data(f"hf:{tmp_path}/faces.parquet", ["hapy"], image_size=16)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_pictures_in_files_beside_a_table(tmp_path):
    (tmp_path / "faces").mkdir()
    for i in range(3):
        (tmp_path / f"faces/{i}.png").write_bytes(png(i))
    (tmp_path / "faces/metadata.csv").write_text("file_name,Smiling\n0.png,1\n1.png,-1\n2.png,\n")
    data = load_data(f"hf:{tmp_path}/faces", image_size=16)
    assert data.files == ["0.png", "1.png", "2.png"]
    np.testing.assert_array_equal(data.labels, [[1], [0], [np.nan]])
    gc.collect()  # `datasets` leaves the table open


def write_tar(path: Path, samples: list[dict[str, object]]) -> None:
    with webdataset.TarWriter(str(path)) as tar:
        for i, sample in enumerate(samples):
            encoded = {k: v if isinstance(v, bytes) else json.dumps(v).encode() for k, v in sample.items()}
            tar.write({"__key__": f"faces/{i}", **encoded})


def test_a_picture_without_json_has_no_labels(tmp_path):
    samples = [{"png": png(0)}, {"png": png(1), "json": {"Hat": -1, "caption": "a hat"}}]
    write_tar(tmp_path / "a.tar", [*samples, {"png": png(2), "json": {"Smiling": "true", "Hat": 1}}])
    data = load_data(f"wds:{tmp_path}/a.tar", ["Smiling", "Hat"], image_size=16)
    np.testing.assert_array_equal(data.labels, [[np.nan, np.nan], [np.nan, 0], [1, 1]])
    assert data.names([1]) == ["1.png"]
    assert set(load_data(f"wds:{tmp_path}/a.tar", image_size=16).attributes) == {"Hat", "Smiling"}


SAMPLE = {"png": png(0), "json": {"Hat": 1}}
BROKEN = {
    "expected a picture .* got json": [SAMPLE, {"json": {"Hat": 1}}],
    "a.tar, 1.png: expected a whole picture": [SAMPLE, {**SAMPLE, "png": png(1)[:200]}],
    "faces/1.json: expected JSON, got": [SAMPLE, {**SAMPLE, "json": b"{"}],
    "expected an object, attributes by name, got list": [SAMPLE, {**SAMPLE, "json": [1]}],
    r"column 'Hat': expected .* got 'maybe' \(1.png\)": [SAMPLE, {**SAMPLE, "json": {"Hat": "maybe"}}],
    r"column 'Hat': expected .* got 2": [SAMPLE, {**SAMPLE, "json": {"Hat": 2}}],
    "column 'Hat': expected .* got both 0 and -1": [{**SAMPLE, "json": {"Hat": v}} for v in (0, 1, -1)],
}


@pytest.mark.parametrize("text", BROKEN)
def test_shards_that_are_broken(text, tmp_path):
    write_tar(tmp_path / "a.tar", BROKEN[text])
    with pytest.raises(DataError, match=text):
        load_data(f"wds:{tmp_path}/a.tar", ["Hat"], image_size=16)


def test_sources_that_are_not_there_or_say_nothing(sources, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "cut.tar").write_bytes((sources / "shards/train-000000.tar").read_bytes()[:5000])
    (tmp_path / "no.parquet").write_bytes(b"PAR1")
    datasets.Dataset.from_dict({"Hat": [True]}).to_parquet(tmp_path / "no-pictures.parquet")
    write_tar(tmp_path / "plain.tar", [{"png": png(0)}])
    for spec, text in {
        "wds:nowhere-{0..3}.tar": r"nowhere-\{0..3\}.tar: expected one tar file or more, got none of this name",
        f"wds:{sources}/shards/train-{{000000..000009}}.tar": "got none of this name",
        f"wds:{sources}/{{split}}.tar": r"expected tar files with train, valid or test for \{split\}, got none",
        "wds:pipe:touch here": "expected one tar file or more",
        f"wds:{tmp_path}/cut.tar": "cut.tar: expected a whole tar file",
        f"wds:{tmp_path}/plain.tar": "expected one column or more of true and false, .* got none",
        "hf:no such name": r"hf:no such name: expected a folder, a parquet file, or OWNER/NAME\[:CONFIG\]",
        f"hf:{tmp_path}/empty": "empty can't be read: ",
        f"hf:{tmp_path}/no.parquet": "no.parquet can't be read: Arrow",
        f"hf:{tmp_path}/no-pictures.parquet": r"expected a column of pictures .* got none among Hat",
    }.items():
        with pytest.raises(DataError, match=text):
            load_data(spec, image_size=16)
    assert not Path("here").exists()


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("me/faces", ("me/faces", None, None)),
        ("faces", ("faces", None, None)),
        ("me/faces:small", ("me/faces", "small", None)),
        ("me/faces@v1.0", ("me/faces", None, "v1.0")),
        ("me/faces:small@refs/pr/3", ("me/faces", "small", "refs/pr/3")),
    ],
)
def test_the_library_is_asked_for_a_data_set_of_the_hub(sources, monkeypatch, name, asked):
    found, load = [], datasets.load_dataset_builder

    def answer(path, config=None, revision=None):
        found.append((path, config, revision))
        return load(str(sources / "parquet"))

    monkeypatch.setattr(datasets, "load_dataset_builder", answer)
    assert len(load_data(f"hf:{name}", image_size=16)) == len(TRAIN)
    assert found == [asked]

    def offline(*arguments, revision):
        raise ConnectionError("no\nnetwork")

    monkeypatch.setattr(datasets, "load_dataset_builder", offline)
    with pytest.raises(DataError, match=f"^hf:{name} can't be read: ConnectionError: no network$"):
        load_data(f"hf:{name}", image_size=16)


def test_the_library_is_named_where_it_is_missing(sources, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"datasets is missing: pip install 'csvae-hub\[data\]'"):
        load_data(f"hf:{sources}/parquet")


@pytest.mark.parametrize("name", ["parquet", "shards"])
def test_a_source_is_read_once(sources, name, tmp_path, monkeypatch):
    spec, counted = {"parquet": f"hf:{sources}/parquet", "shards": f"wds:{sources}/shards"}[name], []
    decode = pictures.decode
    monkeypatch.setattr(pictures, "decode", lambda *arguments: counted.append(1) or decode(*arguments))
    first = load_data(spec, image_size=16)
    assert load_data(spec, ["Hat"], image_size=16).files == first.files
    assert len(counted) == len(TRAIN)
    load_data(spec, image_size=32)
    assert len(counted) == 2 * len(TRAIN)
    for beside in (tmp_path / "cache").glob("*.safetensors"):
        beside.write_bytes(b"cut off")
    assert load_data(spec, image_size=16).fingerprint == first.fingerprint
    assert len(counted) == 3 * len(TRAIN)


def test_a_changed_file_is_read_again(tmp_path):
    for hat in (0, 1):
        write_tar(tmp_path / "a.tar", [{**SAMPLE, "json": {"Hat": hat}}] * (1 + hat))
        assert load_data(f"wds:{tmp_path}/a.tar", image_size=16).labels[:, 0].tolist() == [hat] * (1 + hat)


def test_what_breaks_off_leaves_nothing_behind(tmp_path):
    write_tar(tmp_path / "a.tar", [SAMPLE] * 200)
    content = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"a.tar: expected a whole tar file, got one that is broken off"):
        load_data(f"wds:{tmp_path}/a.tar", image_size=16)
    assert list((tmp_path / "cache").iterdir()) == []


STATUS = Path("/proc/self/status")
MEMORY = f"""
import re, sys
from pathlib import Path
from csvae_hub.data import load_data
peaks = []
for name in ("small", "large"):
    load_data(sys.argv[1] + name, image_size=64)
    peaks.append(int(re.search("VmHWM: *([0-9]+)", Path("{STATUS}").read_text().replace("\\t", " "))[1]) / 1024)
print(*peaks)
"""


@pytest.mark.skipif(not STATUS.exists(), reason="Linux alone tells a process's peak here")
@pytest.mark.parametrize("kind", ["hf", "wds"])
def test_five_times_the_pictures_take_no_more_memory(tmp_path, kind):
    """The pixels of the larger set are 61 MB, and its files as much again."""
    some = [png(i, 64, 64) for i in range(50)]
    for name, count in (("small", 1000), ("large", 5000)):
        if kind == "wds":
            write_tar(tmp_path / f"{name}.tar", [{"png": some[i % 50], "json": {"Hat": i % 2}} for i in range(count)])
        else:
            rows = {"image": [{"bytes": some[i % 50], "path": None} for i in range(count)], "Hat": [True] * count}
            features = datasets.Features({"image": datasets.Image(), "Hat": datasets.Value("bool")})
            datasets.Dataset.from_dict(rows, features).to_parquet(tmp_path / f"{name}.parquet", batch_size=100)
        (tmp_path / f"{name}{'.tar' if kind == 'wds' else '.parquet'}").rename(tmp_path / name)
    command = [sys.executable, "-c", MEMORY, f"{kind}:{tmp_path}/"]
    small, large = map(float, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert large - small < 25, f"{small:.0f} and {large:.0f} MB"


def test_the_first_length_of_an_array_leaves_its_header_as_it_is():
    headers = [io.BytesIO() for _ in range(2)]
    for file, count in zip(headers, (0, 10**9), strict=True):
        pictures._write_header(file, (count, 3, 256, 256))
    assert len({len(file.getvalue()) for file in headers}) == 1


def test_the_names_of_splits():
    assert streams.named_splits(dict.fromkeys(("train", "val", "extra"))) == {
        "train": "train",
        "valid": "val",
        "extra": "extra",
    }
