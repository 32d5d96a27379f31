"""Laws of `train.weights`: tensors are read, programs are not run."""

import base64
import io
import json
import os
import pickle
import time
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest

from gengen.errors import BadInput
from train.measure.weights import read_tensors

# torch 2.15.0, torch.save of the same OrderedDict of tensors twice:
#   weight=torch.arange(6.).reshape(2, 3).t(), half=tensor([1.5, -2], dtype=float16),
#   bf=tensor([1.5, -0.25], dtype=bfloat16), count=tensor(7),
#   mask=tensor([True, False]), tail=torch.arange(5, dtype=uint8)[2:],
#   p=Parameter(tensor([1., 2.], dtype=float64)), and _metadata; zlib, then base85.
LEGACY = (
    "c-nQ7$#T;`5QepQA%cXk6V|ZXEJl(Y#b!$gAq2!0anXfR$?_x;D3)6qg$h-!@+Beg3>-M}6jWY^8&|40&|"
    "2(7DQ8N{OwaW9_e}TnxNm~{@B6~v$qzr@PE>l_tKU3+yTFw6afV?!zDGUFbB#6P2aeYU78mHFIO95$y2K#"
    "umSeVo+tLLz()A880_QUcfbT-Cr03BX*q%=zuW~w%Bd1NFpyu>k#PHfHP*ihah?*A4xWuBU5(sbn7V$}I-"
    "m$0vOj!fAq!-ZR6LD5-3Y<kf-?A%4NF6s244*VZ$88yuv;)sK)?@+rQb{jH>bTNeA&^U4gay|#>AS=zKwc"
    "liHH})mAy#Es5|z3rLLm;+>Vz0u;WdQ=ODd!CDz^zEDy#CFAbho>m=01nq`_#s729-|Va!HVyRWo}rh(Am"
    "tWZsolsb&tMU_K=Bar~N0Y_DK1CAx|;}lM4a8l>ct+@=RGU&N@7m_l-pWcO+s#Qf6B?Tr@{FxMgHo~7v@a"
    "HL9(BNX6Aj=CeDU%t6mzbIX{nB2#q=;}C=`7N(AiZ2ps8=am)8Kl1BCBTb5pHC|_B?k0E$u*Mak@HHRg@Z"
    "((~xhbA>WEZzMa7DP^f5dH-=NwaY4+&*C`pmr3_q_s^XLaGQ#r+uP&*a%5Oj|f=?xIg~GH3b)Aih9vb`9S"
    "I6|tRYHj`z`cz4ycagz9r^ov<&}m457NCoO!xLElAlTBXDK|^U~VfOJoy6i8axfVu%M41$3RK5Wl|HK#q*"
    "0g8X0)rg%@#&_wS~vvOy3u@h-iO?(dKjV28!U4NC++te|qk>R_KMG^E^%q!N`|+*pp!am?=aXD02;_U$aw"
    "?`_ZYez9r4nEneH?_T6Rix0j%e18lm%p+#|Ke-t=4g"
)
ZIP = (
    "c-p0w-EZ4e7{;CNG_0Qt+7&2+@sUE8#!liSUDp&-%)m&rK}c3_A}4VZYi^v^K550rq)MoRiW`PDv@3+fAH"
    "m%;am@`v<BB^jCUyhjFW?+Ib$w20vo%&6E6I6&&vWAQzQ^lIB+7BgBzNqX;HEguZnTXZeX*$_Ez`Yj%F-C"
    "ONgaFPM#C~qy@3p?<D@>co4Tzx*Ng^A0XJWTP+E;+*sgB0+6cl8WMO2c)<cHrq-wTa?-^#ZhV+hO*|i-Z1"
    "(9@GO<;wCM`|q{qMjrro0f(?^1e(#Oby{NS%|9<d~I}lkWk_Xk{b%AM3nGN7*Rq><R+vJ+9btO2+mbuRK-"
    ")}+M2lqV{PoyK4f3RU-{^97tO;&JE4RTOcG>xAEuPhK0NK=&LeoH3eT!xJg~k6(-cf{lk%buoN<8yT=0Oi"
    "ec*Eh_`C;v0l{1qUQ}abGFGpH;3CER!0NPo-b*eo2QOn@2*D-Ho1gbMuON7}3a`2I+}51y@H!pMvP>V7b}"
    "@OF_hP-#kM$;rwcz0{Bgj-?(ZwOnFd<9hK0&&V<6T?<1dNLz$ZaTLC9)5Bf-8795kavEC3j#K$|tOau4Zf"
    "7I@0YFEKzoAR<CXz8D4QYA}o9PulDn=5W|XRxQgJdDo9_sAKv~F)~fJM?*_=~2v*jxiAEMSyzBmcO(m-y-"
    "n#+sy9;nfw;jBuK~X}E<J2?jN+S97=Li2j!grmV>nB#uG&kv2PG-xpw>4Dj(`0FsE+C#@fBO56FUVxbc`|"
    "mED;{C{<x$g2qt)5gJ4lvtOldyWA?8Vd$}apx7IXO20FzwB4^YSV-Xg^=OIOa~dw7@zLZ(hK>|g!!0%;ZT"
    "Q!|WlD^yon%*xWz5CJ^uUIo9c;uk*m@cF|kNi_Y<!&@`>hnWG17U)F0ETtbi5uVO{;w3(KaGR7_bb!|??I"
    "p<4@-Tn@=KadvJ>tK6r)izRKR2v@qE99ny1zfPh-q>_hGjZKUY1H{&Jc2)?_K&?9lZX>IEi*H$kNJCv&Z*"
    "86plnmgkOH!+#u~gHXuTUjvx+Me;)RqN}unp``W>epG~+=0H;M6=W>1&zq>6yX_j1yIR5&5>*K-y{~RYAH"
    "9&Xvj&2*c1AeNJr;nP^l%>oQ2FQw~azQ8;#C)+-5VB&SP%QD;qLAhDIs7gZvpiqo%Vm<%$fX~pagMZ`GDO"
    "1qIfFaH#IfY;a}=u%ZUEDiaw)={w3o1uU=yFEAh&{$V><`S2{z(MiZd1Ej&A_0JlHkIDEW6$j_KX3HrNGe"
    "Z92wic~%?jV6^r&s})#nu=CK`^KnL-W3|EFL2K`_+B~Zb7Co(<N-)|2s|{8ut-Zr)MOGWEw{c2)G0Cx2&5"
    "DC%Fh_~M4T%50K-ZOceBrR1BbR;UD03}FylZLXaC?ZmJB4-5`|Ld_#p0f3)E)1Q{STs(-?0"
)
TENSORS = {
    "weight": np.array([[0, 3], [1, 4], [2, 5]], np.float32),
    "half": np.array([1.5, -2], np.float16),
    "bf": np.array([1.5, -0.25], np.float32),
    "count": np.array(7),
    "mask": np.array([True, False]),
    "tail": np.array([2, 3, 4], np.uint8),
    "p": np.array([1.0, 2.0]),
}


def literal(text):
    return zlib.decompress(base64.b85decode(text))


def read(folder, data, name="weights.pth"):
    path = folder / name
    path.write_bytes(data)
    return read_tensors(path)


def refused(folder, data, name="weights.pth"):
    """The sentence of the refusal: one line that names the file and a remedy."""
    with pytest.raises(BadInput) as info:
        read(folder, data, name)
    sentence = str(info.value)
    assert sentence.startswith(str(folder / name))
    assert ": " in sentence
    assert "\n" not in sentence
    return sentence


def same(found, expected):
    assert list(found) == list(expected)
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name], strict=True)
        assert array.flags.c_contiguous
        assert array.flags.owndata or array.base.flags.owndata


# ---------------------------------------------------------------- pickles by hand


def text(string):
    return b"X" + len(string).to_bytes(4, "little") + string.encode()


def whole(number):
    return b"\x8a\x0a" + number.to_bytes(10, "little", signed=True)


def several(*items):
    return b"(" + b"".join(items) + b"t"


def named(name):
    return b"c%s\n%s\n" % tuple(name.encode().rsplit(b".", 1))


def storage(key="0", kind="torch.FloatStorage", length=6, *more):
    parts = [text("storage"), named(kind), text(key), text("cpu"), whole(length)]
    return several(*parts, *more) + b"Q"


def tensor(shape, strides, offset=0, stored=None):
    sizes = [several(*map(whole, numbers)) for numbers in (shape, strides)]
    args = [stored or storage(), whole(offset), *sizes, b"\x89", b"N"]
    return named("torch._utils._rebuild_tensor_v2") + several(*args) + b"R"


def program(*values, names="abcdefgh"):
    """A pickle of the dict that gives each value, an opcode string, a name."""
    pairs = [text(n) + v for n, v in zip(names, values, strict=False)]
    return b"\x80\x02}(" + b"".join(pairs) + b"u."


def zipped(pickled, records=(("0", bytes(24)),), **options):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **options) as archive:
        archive.writestr("x/data.pkl", pickled)
        for key, raw in records:
            archive.writestr(f"x/data/{key}", raw)
    return file.getvalue()


def by_words(argument):
    """A test's name: the words that it expects."""
    return argument if isinstance(argument, str) else "file"


def safetensors(header, raw=b""):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(header).to_bytes(8, "little") + header + raw


def entry(code, shape, begin, end):
    return {"dtype": code, "shape": shape, "data_offsets": [begin, end]}


# ---------------------------------------------------------------- what is read


@pytest.mark.parametrize("made", [LEGACY, ZIP], ids=["legacy", "zip"])
def test_both_formats_of_torch_save_are_read(made, tmp_path):
    same(read(tmp_path, literal(made)), TENSORS)
    same(read(tmp_path, literal(made), "weights.pt"), TENSORS)


def test_a_tensor_is_a_view_of_its_storage(tmp_path):
    raw = np.arange(6, dtype=np.float32)
    views = [
        tensor([2, 3], [3, 1]),
        tensor([3, 2], [1, 3]),
        tensor([2], [2], offset=3),
        tensor([], [], offset=5),
        tensor([0, 2**40], [1, 1]),
    ]
    found = read(tmp_path, zipped(program(*views), [("0", raw.tobytes())]))
    image = raw.reshape(2, 3)
    expected = [image, image.T, raw[3::2], raw[5], np.zeros((0, 2**40), np.float32)]
    same(found, dict(zip("abcde", expected, strict=True)))


@pytest.mark.parametrize("code", ["F64", "F32", "F16", "I64", "I32", "I16", "I8", "U8"])
def test_safetensors_of_every_type_are_read(code, tmp_path):
    kind = {"F": "f", "I": "i", "U": "u"}[code[0]] + str(int(code[1:]) // 8)
    array = np.arange(6).astype(kind).reshape(2, 3)
    header = {
        "__metadata__": {"format": "pt"},
        "z": entry(code, [2, 3], 4, 4 + array.nbytes),
        "bf": entry("BF16", [1], 0, 2),
        "mask": entry("BOOL", [2], 2, 4),
        "none": entry("F32", [0, 5], 4, 4),
    }
    raw = b"\xc0\x3f\x00\x01" + array.tobytes()  # 1.5, False, True
    found = read(tmp_path, safetensors(header, raw), "weights.safetensors")
    others = {"bf": np.float32([1.5]), "mask": np.array([False, True])}
    same(found, {"z": array, **others, "none": np.zeros((0, 5), np.float32)})


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize("wrap", [zipped, bytes], ids=["zip", "legacy"])
def test_a_program_is_refused_and_not_run(wrap, tmp_path):
    target = tmp_path / "made-by-the-pickle"
    call = named("os.mkdir") + several(text(str(target))) + b"R"
    hostile = program(call)
    pickle.loads(hostile)  # what it does where it is run
    assert target.is_dir()
    os.rmdir(target)
    assert "asks for 'os.mkdir', which no" in refused(tmp_path, wrap(hostile))
    assert not target.exists()


MKDIR = text("os") + text("mkdir") + b"\x93" + several(text("/x")) + b"R"
ENDLESS = b"(" * 2_000_001
BOMB = b")" + b"q\0h\0\x86" * 60  # a pair of the pair of ..., which hashes for ever
FEW = [tensor([6], [1])]


@pytest.mark.parametrize(
    ("pickled", "words"),
    [
        (program(MKDIR), "asks for 'os.mkdir'"),
        (program(named("torch.nn.Linear")), "asks for 'torch.nn.Linear'"),
        (program(b"(ios\nmkdir\n"), "the pickle opcode INST"),
        (program(named("torch.FloatStorage") + b")\x81"), "opcode NEWOBJ"),
        (program(named("torch.FloatStorage") + b")R"), "calls torch.FloatStorage"),
        (program(b"K\x01}b"), "opcode BUILD"),
        (program(b"\x82\x01"), "opcode EXT1"),
        (program(b"}((K\x01tK\x02u"), "keys are not all strings"),
        (program(b"K\x01"), "holds 'a', which is not a tensor"),
        (b"\x80\x02]." + bytes(9), "not hold a dict of tensors"),
        (program(several(text("module")) + b"Q"), "persistent reference"),
        (program(storage("0", "torch.FloatStorage", 6, several()) + b"0"), "reference"),
        (program(storage(length=-1)), "persistent reference"),
        (program(storage(length=2**60)), "persistent reference"),
        (program(tensor([7], [1])), "too short"),
        (program(tensor([2, 3], [3, 1], offset=1)), "too short"),
        (program(tensor([2], [6])), "too short"),
        (program(tensor([2], [-1], offset=3)), "impossible shape"),
        (program(tensor([2], [1], offset=-1)), "impossible shape"),
        (program(tensor([-1], [1])), "impossible shape"),
        (program(tensor([2**50], [0])), "impossible shape"),
        (program(tensor([2**40], [0])), "repeats numbers"),
        (program(tensor([1] * 40, [1] * 40)), "impossible shape"),
        (program(tensor([2, 2], [1])), "malformed (ValueError)"),
        (program(tensor([7], [1], 0, storage(length=7))), "short of the numbers"),
        (program(tensor([6], [1], 0, storage("9"))), "malformed (KeyError)"),
        (program(*FEW, tensor([3], [1], 0, storage(length=3))), "reference"),
        (program(*FEW)[:-1], "malformed"),
        (b"\x80\x02}(" + ENDLESS, "over 2000000 opcodes"),
        (b"\x80\x02}(" + BOMB + b"Nu.", "keys are not all strings"),
        (program(BOMB), "holds 'a', which is not a tensor"),
        (b"\x80\x02u.", "malformed"),
        (b"\x80\x02h\x07.", "malformed"),
        (b"", "malformed"),
    ],
    ids=by_words,
)
def test_pickles_of_anything_else_are_refused(pickled, words, tmp_path):
    assert words in refused(tmp_path, zipped(pickled))


def test_the_table_above_differs_from_a_good_file_by_its_fault_alone(tmp_path):
    same(read(tmp_path, zipped(program(*FEW))), {"a": np.zeros(6, np.float32)})


def test_many_views_of_one_storage_are_not_many_times_its_memory(tmp_path):
    shared = b"q\x07".join([storage(length=2**18), b""])
    views = [tensor([2**18], [1], 0, stored) for stored in [shared, *[b"h\x07"] * 7]]
    data = zipped(program(*views), [("0", bytes(2**20))])
    assert "over 4 times" in refused(tmp_path, data)


def patched(data, old, new):
    assert old in data
    return data.replace(old, new)


GOOD = zipped(program(*FEW))
BIG = "x/byteorder"


def with_entry(name, content):
    file = io.BytesIO(GOOD)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(name, content)
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (GOOD[:-30], "malformed (BadZipFile)"),
        (GOOD[: len(GOOD) // 2], "malformed (BadZipFile)"),
        (patched(GOOD, bytes(24), bytes(23) + b"1"), "malformed (BadZipFile)"),
        (zipped(program(*FEW), compression=zipfile.ZIP_DEFLATED), "compressed"),
        (patched(GOOD, b"PK\1\2\x14\3\x14\0\0", b"PK\1\2\x14\3\x14\0\1"), "encrypted"),
        (with_entry(BIG, "big"), "not little-endian"),
        (with_entry("y/data.pkl", ""), "2 entries data.pkl"),
        (GOOD[:30] + b"PK\1\2" * 200_001, "over 200000 entries"),
        (literal(LEGACY)[:-1], "short of the numbers of "),
        (literal(LEGACY)[:-50], "damaged"),
        (b"\x80\x02K\x01.", "not a file of torch.save"),
        (b"weights", "not a file of torch.save"),
        (b"", "not a file of torch.save"),
    ],
    ids=by_words,
)
def test_damaged_and_absurd_files_of_torch_are_refused(data, words, tmp_path):
    assert words in refused(tmp_path, data)


F32 = entry("F32", [2], 0, 8)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "shorter than its header"),
        (safetensors({"a": F32}, bytes(8))[:20], "shorter than its header"),
        ((2**63).to_bytes(8, "little") + b"{}", "shorter than its header"),
        (safetensors({"a": F32}, bytes(7)), "cannot be"),
        (safetensors({"a": F32}, bytes(9)), "header promises"),
        (safetensors({"a": F32, "b": F32}, bytes(8)), "cannot be"),
        (safetensors({"a": entry("F32", [2], 8, 16)}, bytes(16)), "cannot be"),
        (safetensors({"a": entry("F32", [3], 0, 8)}, bytes(8)), "cannot be"),
        (safetensors({"a": entry("F32", [-2], 0, 8)}, bytes(8)), "impossible shape"),
        (safetensors({"a": entry("F32", [2**50], 0, 8)}, bytes(8)), "impossible shape"),
        (safetensors({"a": entry("F32", [2.0], 0, 8)}, bytes(8)), "impossible shape"),
        (safetensors({"a": entry("F8_E4M3", [8], 0, 8)}, bytes(8)), "'F8_E4M3'"),
        (safetensors({"a": 1}), "malformed"),
        (safetensors([]), "malformed"),
        (safetensors(b"[" * 100_000), "malformed"),
        (safetensors(b'{"a": \xff}'), "malformed"),
    ],
    ids=by_words,
)
def test_damaged_safetensors_are_refused(data, words, tmp_path):
    assert words in refused(tmp_path, data, "weights.safetensors")


def test_what_is_no_file_of_weights_is_refused(tmp_path):
    for name in ("weights.npz", "weights"):
        assert "ends in .safetensors, .pth, .pt" in refused(tmp_path, b"", name)
    with pytest.raises(BadInput, match="gone.pth is not a file: name the file"):
        read_tensors(tmp_path / "gone.pth")
    (tmp_path / "folder.pth").mkdir()
    with pytest.raises(BadInput, match="folder.pth is not a file"):
        read_tensors(str(tmp_path / "folder.pth"))


# ---------------------------------------------------------------- mutations


def mutated(data, rng):
    """The data with bytes changed, cut, repeated or put in."""
    data, at = bytearray(data), int(rng.integers(len(data)))
    length = int(rng.integers(1, 9))
    match rng.integers(4):
        case 0:
            data[at : at + length] = rng.bytes(min(length, len(data) - at))
        case 1:
            del data[at:]
        case 2:
            del data[at : at + length]
        case 3:
            data[at:at] = rng.choice([rng.bytes(length), b"\xff" * length])
    return bytes(data)


def test_mutated_files_are_refused_or_read_in_little_time_and_memory(tmp_path):
    """Pickles are mutated inside their zip too, where no checksum shields them."""
    with zipfile.ZipFile(io.BytesIO(literal(ZIP))) as archive:
        pickled = archive.read("archive/data.pkl")
        keys = [(str(k), archive.read(f"archive/data/{k}")) for k in range(7)]
    header = {"a": F32, "b": entry("BF16", [2, 2], 8, 16)}
    tensors = safetensors(header, bytes(16))
    kinds = [
        ("weights.pth", lambda rng: mutated(literal(ZIP), rng)),
        ("weights.pth", lambda rng: mutated(literal(LEGACY), rng)),
        ("weights.pth", lambda rng: zipped(mutated(pickled, rng), keys)),
        ("weights.safetensors", lambda rng: mutated(tensors, rng)),
    ]
    rng, outcomes = np.random.default_rng(0), {"refused": 0, "read": 0}
    tracemalloc.start()
    start = time.perf_counter()
    for i in range(500):
        name, mutate = kinds[i % len(kinds)]
        data = mutate(rng)
        try:
            found = read(tmp_path, data, name)
        except BadInput as error:
            assert "\n" not in str(error)
            outcomes["refused"] += 1
        else:
            assert sum(array.nbytes for array in found.values()) <= 8 * len(data)
            outcomes["read"] += 1
    assert time.perf_counter() - start < 20
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()
    assert min(outcomes.values()) > 20
