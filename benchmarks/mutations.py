"""Ways to spoil the files of a weights folder, drawn by a seeded generator; see fuzz.py."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

from csvae_hub import hub

FILES = (hub.CONFIG, hub.PREPROCESSOR, hub.WEIGHTS)
Files = dict[str, bytes]
Mutation = Callable[[random.Random, bytes, bytes], tuple[bytes, str]]
"""From the bytes of a file and those of another folder's to spoilt bytes and words for what was done."""


# -- any file -----------------------------------------------------------------------------------------------------


def _span(rng: random.Random, data: bytes, most: int = 64) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + rng.choice((1, 2, 4, 8, rng.randrange(1, most + 1), len(data) // 2)))


def flip_bits(rng: random.Random, data: bytes, other: bytes) -> tuple[bytes, str]:
    spoilt, places = bytearray(data), []
    for _ in range(rng.choice((1, 1, 2, 8, 64)) if data else 0):
        place = rng.randrange(min(len(data), rng.choice((8, 200, 5000, len(data)))))
        spoilt[place] ^= 1 << rng.randrange(8)
        places.append(place)
    return bytes(spoilt), f"bits flipped in bytes {places[:8]}"


def truncate(rng: random.Random, data: bytes, other: bytes) -> tuple[bytes, str]:
    kept = rng.choice((0, 1, 7, 8, 9, len(data) - 1, rng.randrange(len(data) + 1)))
    return data[:kept], f"truncated to {kept} of {len(data)} bytes"


def insert(rng: random.Random, data: bytes, other: bytes) -> tuple[bytes, str]:
    start, count = rng.choice((0, 8, len(data), rng.randrange(len(data) + 1))), rng.choice((1, 2, 8, 100, 4096))
    new = rng.choice((rng.randbytes(count), bytes(count), b" " * count, b"\xff" * count))
    return data[:start] + new + data[start:], f"{count} bytes ({new[:4]!r}…) inserted at {start}"


def delete(rng: random.Random, data: bytes, other: bytes) -> tuple[bytes, str]:
    start, stop = _span(rng, data)
    return data[:start] + data[stop:], f"bytes {start} to {stop} deleted"


def overwrite(rng: random.Random, data: bytes, other: bytes) -> tuple[bytes, str]:
    start, stop = _span(rng, data)
    new = rng.choice((b"\0", b"\xff", b"\x7f", b"{", b'"', b"[", b"9")) * (stop - start)
    return data[:start] + new + data[stop:], f"bytes {start} to {stop} overwritten with {new[:1]!r}"


def splice(rng: random.Random, data: bytes, other: bytes) -> tuple[bytes, str]:
    (start, stop), (first, last) = _span(rng, data), _span(rng, other)
    return data[:start] + other[first:last] + data[
        stop:
    ], f"bytes {start} to {stop} replaced by {first} to {last} of another"


def exchange(rng: random.Random, data: bytes, other: bytes) -> tuple[bytes, str]:
    return other, "the file of another folder"


BYTES: tuple[Mutation, ...] = (flip_bits, truncate, insert, delete, overwrite, splice)


# -- JSON -----------------------------------------------------------------------------------------------------------

NASTY = (
    *(
        "0",
        "-1",
        "1",
        "2",
        "3",
        "4",
        "4095",
        "4096",
        "4097",
        "2147483648",
        "18446744073709551616",
        "9" * 400,
        "9" * 9000,
    ),
    *("0.5", "-0.0", "1e-400", "1e308", "1e400", "-1e400", "NaN", "Infinity", "-Infinity", "1e", "0x10", "1_000"),
    *(
        "true",
        "false",
        "null",
        '""',
        '" "',
        '"conv"',
        '"resnet"',
        '"mlp"',
        '"csvae"',
        '"vae"',
        '"cond-vae"',
        '"gaussian"',
    ),
    *('"../../../etc/passwd"', '"os:system"', '"\\u0000"', '"\\ud800"', '"F32"', '"F8_E4M3"', '"I64"', '"é\u202e"'),
    *("[]", "{}", "[[]]", "[1, 2, 3]", "[3, 16, 16]", "[3, 256, 256]", "[4096]", '{"a": {}}', '["Smiling", "Smiling"]'),
    '{"name": "resnet", "width": 4096, "depth": 4096, "features": 4096, "film": true}',
    '{"name": "mlp", "width": 4096, "depth": 4096, "features": 1}',
    '"' + "a" * 300_000 + '"',
    "[" + "0, " * 100_000 + "0]",
    "[" * 100_000 + "]" * 100_000,
    "[" * 300 + "]" * 300,
    '{"a": ' * 500 + "0" + "}" * 500,
)
"""JSON's words for values that no field expects, some of them no JSON at all."""
_HOLE = "@hole@"


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every container and key of a JSON tree."""
    for key in list(node) if isinstance(node, dict) else range(len(node)):
        yield node, key
        if isinstance(node[key], dict | list):
            yield from _places(node[key])


def spoil_tree(rng: random.Random, tree: Any) -> tuple[str, str]:
    """The text of a JSON object with one thing changed, and words for it."""
    places = list(_places(tree))
    if not places:
        return "{}", "nothing to spoil"
    node, key = rng.choice(places)
    word = rng.choice(NASTY)
    act = rng.choice(("value", "value", "value", "value", "nudge", "swap", "delete", "add", "twice"))
    if act == "nudge" and type(node[key]) in (int, float):
        node[key] += rng.choice((-1, 1, 2, 0.5, -(2**31), 2**62))
    elif act == "swap":
        there, its = rng.choice(places)
        value = json.loads(json.dumps(node[key]))
        node[key], there[its] = json.loads(json.dumps(there[its])), value
    elif act == "delete":
        del node[key]
    elif act == "add" and isinstance(node, dict):
        node[rng.choice(("extra", "", "package", "Shape", "__class__", "priors", str(key) + " "))] = _HOLE
    elif act == "twice" and isinstance(node, dict):
        words = json.dumps(tree, ensure_ascii=False)
        return words.replace(
            f"{json.dumps(key)}:", f"{json.dumps(key)}: {word}, {json.dumps(key)}:", 1
        ), f"{key!r} twice"
    else:
        act, node[key] = "value", _HOLE
    return json.dumps(tree, ensure_ascii=False).replace(f'"{_HOLE}"', word), f"{act} of {key!r} ({word[:40]})"


def json_tree(rng: random.Random, data: bytes, other: bytes) -> tuple[bytes, str]:
    try:
        text, words = spoil_tree(rng, json.loads(data))
        return text.encode("utf-8", "surrogatepass"), words
    except (ValueError, RecursionError, TypeError):  # spoilt already
        return flip_bits(rng, data, other)


HOSTILE = (
    "\x1b[2J",
    "\u202eSmiling",
    "a\nb",
    "a" * 5000,
    "\ud800",
    "",
    " ",
    "../x",
    "<b>",
    "`|`",
    "é",
    "\x00",
    "Smiling",
)
"""Names that no attribute or tensor should have, and some that one may."""


def config_structure(rng: random.Random, data: bytes, other: bytes) -> tuple[bytes, str]:
    """A config as a stranger would write it to hurt: names, numbers of things, depths, groups."""
    try:
        config = json.loads(data)
        names = list(config["attributes"])
        act = rng.choice(("names", "many", "deep", "groups", "priors", "places"))
        if act == "names":
            names[rng.randrange(len(names))] = rng.choice(HOSTILE)
            config["attributes"] = names
        elif act == "many":
            count = rng.choice((100, 1023, 1024, 1025, 4096, 60_000))
            config["attributes"] = [f"a{i}" for i in range(count)]
            config["priors"] = {f"a{i}": {"absent_loc": float(i)} for i in range(rng.choice((0, count)))}
        elif act == "deep":
            config["backbone"] |= {"depth": rng.choice((2, 63, 64, 65, 4096)), "width": rng.choice((1, 4, 4096))}
        elif act == "groups":
            group = rng.sample([*names, rng.choice(HOSTILE)], rng.randrange(1, len(names) + 2))
            config["exclusive"] = rng.choice(([group], [group, group], [names], [[]], [names[:2], names[1:]], group))
        elif act == "priors":
            value = rng.choice((0.0, -1.0, 1e-30, 1e30, 1e308))
            config["priors"] = {rng.choice([*names, *HOSTILE]): {"present_scale": value, "absent_loc": value}}
        else:
            config |= {"z_grid": rng.choice((0, 2, 4, 8, 16, 4096)), "z_dim": rng.choice((1, 16, 64, 4096))}
        return json.dumps(config).encode("utf-8", "surrogatepass"), f"config: {act}"
    except (ValueError, RecursionError, TypeError, KeyError, IndexError, AttributeError):
        return flip_bits(rng, data, other)


def extreme_preprocessor(rng: random.Random, data: bytes, other: bytes) -> tuple[bytes, str]:
    """Landmarks, sizes and ranges that no picture can be brought to."""
    try:
        content = json.loads(data)
        points = [list(point) for point in content["landmarks"]]
        act = rng.choice(("equal", "one", "scale", "mirror", "turn", "count", "range", "size"))
        if act == "equal":
            points = [points[0]] * len(points)
        elif act == "one":
            points[rng.randrange(len(points))][rng.randrange(2)] = rng.choice((1e300, -1e300, 1e-300, 1e9, -1.0))
        elif act == "scale":
            factor = rng.choice((0.0, 1e-9, 0.1, 1e3, 1e150, -1.0))
            points = [[factor * x, factor * y] for x, y in points]
        elif act == "mirror":
            points = [[178 - x, y] for x, y in points]
        elif act == "turn":
            points = [[y, x] for x, y in points]
        elif act == "count":
            points = points[: rng.randrange(5)] + points * rng.choice((0, 1, 1000))
        elif act == "range":
            content["range"] = rng.choice(([0.0, 0.0], [1.0, 0.0], [-1e300, 1e300], [0.0], [0, 1, 2]))
        else:
            content["size"] = rng.choice((0, 1, -16, 15, 17, 48, 2**20, 2**63))
        return json.dumps({**content, "landmarks": points}).encode(), f"preprocessor: {act}"
    except (ValueError, RecursionError, TypeError, KeyError, IndexError, AttributeError):
        return flip_bits(rng, data, other)


def json_text(rng: random.Random, data: bytes, other: bytes) -> tuple[bytes, str]:
    words = rng.choice(
        ("utf-16", "utf-8-sig", "latin-1 ü", "twice", "in a list", "comment", "comma", "blank", "spaces")
    )
    text = data.decode("utf-8", "replace")
    spoilt = {
        "utf-16": text.encode("utf-16"),
        "utf-8-sig": b"\xef\xbb\xbf" + data,
        "latin-1 ü": data.replace(b"a", b"\xfc", 1),
        "twice": data + data,
        "in a list": b"[" + data + b"]",
        "comment": data + b"// so",
        "comma": data.replace(b"}", b",}", 1),
        "blank": b"",
        "spaces": b" " * 50_000 + data + b"\n" * 50_000,
    }
    return spoilt[words], f"text: {words}"


# -- safetensors ------------------------------------------------------------------------------------------------------


def parts(data: bytes) -> tuple[dict[str, Any], bytes]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def _whole(header: str, body: bytes) -> bytes:
    text = header.encode("utf-8", "surrogatepass")
    return len(text).to_bytes(8, "little") + text + body


def header_length(rng: random.Random, data: bytes, other: bytes) -> tuple[bytes, str]:
    length = int.from_bytes(data[:8], "little")
    near = length + rng.choice((-8, -2, -1, 1, 2, 8, 64))
    claimed = rng.choice((0, 1, 2, near, len(data), len(data) - 8, 10**8, 10**8 + 1, 2**31, 2**63, 2**64 - 1)) % 2**64
    return claimed.to_bytes(8, "little") + data[8:], f"header of {length} bytes said to have {claimed}"


def header_tree(rng: random.Random, data: bytes, other: bytes) -> tuple[bytes, str]:
    try:
        header, body = parts(data)
        text, words = spoil_tree(rng, header)
    except (ValueError, RecursionError, TypeError):
        return flip_bits(rng, data, other)
    return _whole(text, body), f"header: {words}"


def tensor_entry(rng: random.Random, data: bytes, other: bytes) -> tuple[bytes, str]:
    """One tensor's type, shape, place or name, or the order of all."""
    try:
        header, body = parts(data)
        names = [name for name in header if name != "__metadata__"]
        name, second = rng.choice(names), rng.choice(names)
        entry = header[name]
        begin, end = entry["data_offsets"]
        act = rng.choice(
            ("dtype", "shape", "product", "offsets", "same place", "rename", "drop", "more", "order", "pad")
        )
        if act == "dtype":
            entry["dtype"] = rng.choice(
                ("F16", "BF16", "F64", "I32", "U32", "I8", "BOOL", "F8_E5M2", "C64", "F4", "f32")
            )
        elif act == "shape":
            entry["shape"] = rng.choice(
                ([], [0], [-1], [2**63], [1] * 5000, entry["shape"][::-1], [*entry["shape"], 1])
            )
        elif act == "product":  # overflows to the right number of bytes in 64 bits
            entry["shape"] = rng.choice(([2**32, 2**32], [2**61, 2, 2], [2**62 + (end - begin) // 4], [2**33, 2**31]))
        elif act == "offsets":
            lies = (
                [end, begin],
                [begin, end + 4],
                [begin, 2**64 - 1],
                [begin + 4, end + 4],
                [0, len(body)],
                [begin, begin],
            )
            entry["data_offsets"] = rng.choice(lies)
        elif act == "same place":
            entry["data_offsets"] = header[second]["data_offsets"]
        elif act == "rename":
            header[rng.choice((second, name + "x", "", "__metadata__", "a/../b", "é"))] = header.pop(name)
        elif act == "drop":
            del header[name]
        elif act == "more":
            header["extra"] = {"dtype": "F32", "shape": [2], "data_offsets": [len(body), len(body) + 8]}
            body += bytes(8)
        elif act == "order":
            header = dict(rng.sample(list(header.items()), len(header)))
        return _whole(json.dumps(header) + " " * (rng.randrange(9) if act == "pad" else 0), body), f"{act} of {name!r}"
    except (ValueError, RecursionError, KeyError, TypeError, IndexError, AttributeError):
        return flip_bits(rng, data, other)


def tensor_structure(rng: random.Random, data: bytes, other: bytes) -> tuple[bytes, str]:
    """Many empty tensors, hostile names, places that overlap, and a key of the header twice."""
    try:
        header, body = parts(data)
        names = [name for name in header if name != "__metadata__"]
        act = rng.choice(("empty", "names", "overlap", "twice"))
        if act == "empty":
            entry = {"dtype": rng.choice(("F32", "F16", "BOOL")), "shape": [0], "data_offsets": [len(body)] * 2}
            header |= {f"extra.{i}": entry for i in range(rng.choice((1, 1000, 20_001, 60_000)))}
        elif act == "names":
            header[rng.choice(HOSTILE)] = header.pop(rng.choice(names))
        elif act == "overlap":
            first, second = (header[name]["data_offsets"] for name in rng.sample(names, 2))
            size = second[1] - second[0]
            start = max(0, first[0] + rng.choice((-4, 0, 4, size // 2 // 4 * 4)))
            second[:] = [start, start + size]
        else:
            name, text = json.dumps(rng.choice(names)), json.dumps(header)
            again = rng.choice(('{"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}', "null", "{}", "3"))
            return _whole(text.replace(f"{name}:", f"{name}: {again}, {name}:", 1), body), f"{name} twice"
        return _whole(json.dumps(header), body), f"tensors: {act}"
    except (ValueError, RecursionError, KeyError, TypeError, IndexError, AttributeError):
        return flip_bits(rng, data, other)


def numbers(rng: random.Random, data: bytes, other: bytes) -> tuple[bytes, str]:
    """Other numbers in the tensors: most of what comes out is well formed."""
    try:
        length = 8 + int.from_bytes(data[:8], "little")
        place = length + 4 * rng.randrange((len(data) - length) // 4)
    except ValueError:
        return flip_bits(rng, data, other)
    word = rng.choice(("0000c07f", "0000807f", "000080ff", "ffff7f7f", "01000000", "0000803f", "007c007c", "00000080"))
    return data[:place] + bytes.fromhex(word) + data[place + 4 :], f"bytes at {place} set to {word}"


MUTATIONS: dict[str, tuple[Mutation, ...]] = {
    hub.CONFIG: (*BYTES, *[json_tree] * 12, *[config_structure] * 6, json_text, exchange),
    hub.PREPROCESSOR: (*BYTES, *[json_tree] * 6, *[extreme_preprocessor] * 4, json_text, exchange),
    hub.WEIGHTS: (
        *BYTES,
        *[header_tree] * 5,
        *[tensor_entry] * 6,
        *[tensor_structure] * 4,
        header_length,
        header_length,
        numbers,
        numbers,
        exchange,
    ),
}


def spoil(folders: dict[str, Files], seed: int, index: int) -> tuple[str, Files, str]:
    """Spoilt folder number `index`: the name of the whole one, the files, and words for what was done."""
    rng = random.Random(f"{seed} {index}")
    base, other = rng.choice(list(folders)), rng.choice(list(folders))
    files, words = dict(folders[base]), []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        name = rng.choices(FILES, (4, 1, 5))[0]
        files[name], done = rng.choice(MUTATIONS[name])(rng, files[name], folders[other][name])
        words.append(f"{name}: {done}")
    return base, files, f"{base}: {'; '.join(words)}"
