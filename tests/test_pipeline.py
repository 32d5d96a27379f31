"""Laws of the input pipeline: reading ahead, bad records, and what waiting costs."""

import io
import json
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image
from program import EVENTS, TINY, refused

from gengen.errors import BadInput
from train.data.feed import Feed, order
from train.data.load import load
from train.data.split import part_of
from train.run.waits import Waits

NOISE = np.random.default_rng(0).integers(0, 256, (30, 16, 16), dtype=np.uint8)


def png(k) -> bytes:
    file = io.BytesIO()
    Image.fromarray(NOISE[k]).save(file, "png")
    return file.getvalue()


def truncated(k) -> bytes:
    return png(k)[:150]


def folder(path, bad=()):
    """Thirty images; those of `bad` are broken."""
    for k in range(30):
        file = path / f"{k:02}.png"
        file.write_bytes(truncated(k) if k in bad else png(k))
    return f"folder:{path}"


# ---------------------------------------------------------------- reading ahead


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_a_pure_function_of_the_step_whoever_reads(workers):
    dataset = load("digits")
    truth = dataset.fetch(np.arange(1000))
    feed = Feed(dataset, 300, seed=1, resident_bytes=0, workers=workers)
    calls = [(5, 2), (7, 2), (8, 2), (0, 1)]  # on, overlapping, back
    for step, num in calls[:3] if workers else calls:
        items = feed.items(step, num)
        places = order(1, step * 300, num * 300, 1000)
        for key, array in truth.items():
            got = items[key]
            np.testing.assert_array_equal(
                got.reshape(-1, *array.shape[1:]), array[places]
            )
        like = jax.tree.map(lambda a: (a.shape, a.dtype), feed.example(num))
        assert like == jax.tree.map(lambda a: (a.shape, a.dtype), items)
    feed.close()


def test_the_sentence_of_a_worker_arrives(tmp_path):
    feed = Feed(load(folder(tmp_path, bad=[0])), 22, 0, resident_bytes=0, workers=1)
    with pytest.raises(BadInput, match=r"00.png cannot be read .*: repair, convert"):
        feed.items(0, 1)


def test_a_run_that_reads_resumes_bit_for_bit(cli, tmp_path):
    line = f"train vae {TINY['vae']} {EVENTS} --resident-bytes 0"
    assert cli(f"{line} --workdir {tmp_path / 'one'} --steps 4")[0] == 0
    assert cli(f"{line} --workdir {tmp_path / 'two'} --steps 2")[0] == 0
    status, out, _ = cli(f"{line} --workdir {tmp_path / 'two'} --steps 4")
    assert status == 0 and "resumed from the checkpoint at step 2" in out
    one, two = (
        cli(f"train.inspect --workdir {tmp_path / w}")[1] for w in ("one", "two")
    )
    assert one == two and "step 4\n" in one
    rows = [json.loads(x) for x in (tmp_path / "one/metrics.jsonl").open()]
    assert all(0 <= row["input_share"] <= 1 for row in rows)


# ---------------------------------------------------------------- bad records


def test_bad_files_are_left_out_of_the_order_and_named(tmp_path):
    name = folder(tmp_path, bad=[3, 10])  # 10 is a test image
    (tmp_path / "05.png").write_bytes(b"no header")
    with pytest.raises(BadInput, match=r"05.png cannot .* --on-bad-record skip"):
        load(name)
    train, test = (load(name, split=s, on_bad_record="skip") for s in ("train", "test"))
    parts = [part_of(f"{k:02}.png") for k in range(30)]
    good = [k for k in range(30) if parts[k] == "train" and k not in (3, 5)]
    got = train.fetch(np.arange(train.size))["image"][..., 0]
    np.testing.assert_array_equal(got, NOISE[good])
    assert train.left_out == (f"{tmp_path}/05.png", f"{tmp_path}/03.png")
    assert f"2 left out as unreadable: {tmp_path}/05.png" in train.note
    got = test.fetch(np.arange(test.size))["image"][..., 0]
    np.testing.assert_array_equal(got, NOISE[[1, 2, 8, 23, 26]])
    assert test.left_out == (f"{tmp_path}/10.png",)
    # An epoch has every good example once: none is repeated in the place of a bad one.
    feed = Feed(train, 20, seed=0, resident_bytes=0)
    epoch = feed.items(0, 1)["image"][0, ..., 0]
    assert {x.tobytes() for x in epoch} == {x.tobytes() for x in NOISE[good]}
    feed.close()


def test_a_set_without_bad_files_is_the_same_under_either_rule(tmp_path):
    refuse, skip = (load(folder(tmp_path), on_bad_record=x) for x in ("refuse", "skip"))
    assert (skip.size, skip.note, skip.left_out) == (refuse.size, refuse.note, ())
    for k in range(30):
        (tmp_path / f"{k:02}.png").write_bytes(truncated(k))
    with pytest.raises(BadInput, match=r"no record .* can be read.*00.png"):
        load(f"folder:{tmp_path}", on_bad_record="skip")


def test_a_run_that_skips_resumes_the_same_run_only(cli, tmp_path):
    data, workdir = tmp_path / "data", tmp_path / "w"
    data.mkdir()
    folder(data, bad=[3, 13])
    options = TINY["vae"].replace("--batch-size 16", "--batch-size 8")
    line = f"train vae {options} {EVENTS} --workdir {workdir} --dataset folder:{data}"
    refused(cli(f"{line} --steps 2"), "03.png", "--on-bad-record skip")
    skip = f"{line} --on-bad-record skip --resident-bytes 0"
    status, out, err = cli(f"{skip} --steps 2")
    assert status == 0 and f"1 left out as unreadable: {data}/03.png" in out, err
    assert f"held-out images: 1 left out as unreadable: {data}/13.png" in out
    record = json.loads((workdir / "experiment.json").read_text())["run"]
    assert record["examples"] == 21 and record["left_out"] == [f"{data}/03.png"]
    refused(cli(f"{line} --steps 4 --resident-bytes 0"), "--on-bad-record skip, not")
    assert cli(f"{skip} --steps 4")[0] == 0
    (data / "03.png").write_bytes(png(3))
    (data / "04.png").write_bytes(truncated(4))
    refused(cli(f"{skip} --steps 6"), "left out", "03.png, not", "04.png")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Twelve PNGs, prepared by TFDS; the third is truncated in its record."""
    import tensorflow_datasets as tfds

    class Broken(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            image = tfds.features.Image(shape=(16, 16, 1))
            features = tfds.features.FeaturesDict({"image": image, "other": np.int64})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for k in range(12):
                file = io.BytesIO(truncated(k) if k == 3 else png(k))
                yield k, {"image": file, "other": k}

    tfds.disable_progress_bar()
    path = tmp_path_factory.mktemp("prepared")
    Broken(data_dir=path, file_format="array_record").download_and_prepare()
    return path


def test_bad_records_are_named_or_left_out(prepared):
    file = next(prepared.glob("broken/*/*array_record*"))
    want = {NOISE[k].tobytes() for k in range(12) if k != 3}
    for flipped in (False, True):
        if flipped:  # a bit of a good record's pixels: array_record's sum does not fit
            raw = bytearray(file.read_bytes())
            k = next(k for k in range(12) if k != 3 and png(k)[60:90] in raw)
            raw[raw.index(png(k)[60:90])] ^= 1
            file.write_bytes(raw)
            want.remove(NOISE[k].tobytes())
        dataset = load("broken", data_dir=prepared)
        with pytest.raises(BadInput, match=rf"record \d+ of {file} cannot be read as"):
            dataset.fetch(np.arange(12))
        good = load("broken", data_dir=prepared, on_bad_record="skip")
        assert good.size == len(want) and len(good.left_out) == 12 - len(want)
        image = good.fetch(np.arange(good.size))["image"]
        assert {x.tobytes() for x in image} == want
        for name in good.left_out:  # the right one is named
            place = int(name.split()[1])
            with pytest.raises(BadInput, match=name):
                dataset.fetch(np.array([place]))


# ---------------------------------------------------------------- waiting


def test_waiting_counts_where_the_devices_have_nothing_left_to_do():
    waits = Waits()

    def wait(ready):
        train_state = SimpleNamespace(step=SimpleNamespace(is_ready=lambda: ready))
        with waits.until_computed(train_state):
            time.sleep(0.02)

    wait(True)
    assert waits.share(num=10, seconds=0.02) == 1.0  # the start, which does not count
    wait(False)
    assert waits.share(10, 0.02) == 0 and waits.told(4, 0) == ""
    wait(True)
    assert waits.share(30, 0.06) >= 1 / 3
    assert "of the time went into waiting for data, 2,000 images/s" in waits.told(4, 0)
    assert "--workers 1 reads" in waits.told(4, 0)
    assert "--workers 4 reads" in waits.told(4, 2)


def test_throughput_is_told(cli, tmp_path):
    line = "train.throughput --seconds 0.05 --batch-size 10"
    status, out, _ = cli(line)
    assert status == 0 and "images/s" in out and "keeps it on the device" in out
    status, out, _ = cli(f"{line} --dataset {folder(tmp_path)} --resident-bytes 9")
    assert status == 0 and "0 MiB: training reads it so" in out
    refused(cli(f"{line} --workers -1"), "--workers -1")
    refused(cli("train.throughput --batch-size 2000"), "batch size 2000")
