"""A checkpoint gives back exactly what went in, or says which file is damaged."""

import hashlib
import json
import os
import struct

import numpy as np
import pytest
from safetensors.numpy import load as load_safetensors

from cnnctl.errors import CheckpointError
from cnnctl.train import checkpoint as module
from cnnctl.train.checkpoint import (
    LAST,
    PREVIOUS,
    Checkpoint,
    Metadata,
    Progress,
    load_checkpoint,
    load_last_checkpoint,
    save_checkpoint,
)

PROGRESS = Progress(step=7, epoch=1, position=3, loss_sum=0.1 + 0.2, correct=5, images=12, best=0.75)


def make_checkpoint(progress=PROGRESS):
    weight = np.arange(6, dtype=np.float32).reshape(2, 3) / 7
    return Checkpoint(
        Metadata(progress=progress, config="name: x\n", seed=231, engine={"backend": "naive"}),
        params={"linear1.weight": weight, "linear1.bias": np.array([0, -0.0], np.float32)},
        statistics={"batchnorm1.running_mean": np.full(2, 0.5, np.float32)},
        slots={"m/linear1.weight": weight.T.copy().T, "v/linear1.weight": weight**2},
        scale=np.full(1, 1 / 255),
        shift=np.zeros((1, 1, 3)),
    )


@pytest.fixture
def content():
    return bytes(make_checkpoint().pack())


def unpack(content, tmp_path):
    path = tmp_path / LAST
    path.write_bytes(content)
    return load_checkpoint(path)


def repair_digest(content):
    """What a forger, or a fuzzer that wants to get past the digest, would do."""
    zeroed = bytearray(content)
    zeroed[module._DIGEST] = b"0" * 64
    zeroed[module._DIGEST] = hashlib.sha256(zeroed).hexdigest().encode()
    return bytes(zeroed)


def test_round_trip_is_exact(content, tmp_path):
    loaded, original = unpack(content, tmp_path), make_checkpoint()
    assert loaded.metadata.progress == PROGRESS
    assert (loaded.metadata.seed, loaded.metadata.engine) == (231, {"backend": "naive"})
    for group in ("params", "statistics", "slots"):
        have, want = getattr(loaded, group), getattr(original, group)
        assert have.keys() == want.keys()
        for key in want:
            assert have[key].dtype == want[key].dtype
            assert have[key].tobytes() == want[key].tobytes()
    assert loaded.scale.tobytes() == original.scale.tobytes()
    assert loaded.shift.shape == (1, 1, 3)


def test_the_same_state_gives_the_same_bytes(content, tmp_path):
    assert make_checkpoint().pack() == content
    assert unpack(content, tmp_path).pack() == content


def test_other_programs_can_open_it(content):
    tensors = load_safetensors(content)
    assert set(tensors) == {
        "params/linear1.weight",
        "params/linear1.bias",
        "statistics/batchnorm1.running_mean",
        "optimizer/m/linear1.weight",
        "optimizer/v/linear1.weight",
        "data/scale",
        "data/shift",
    }


def test_every_truncation_is_refused(content, tmp_path):
    for length in range(len(content)):
        with pytest.raises(CheckpointError, match=LAST):
            Checkpoint.unpack(content[:length], tmp_path / LAST)


@pytest.mark.parametrize("bit", range(8))
def test_every_flipped_bit_is_refused(content, bit, tmp_path):
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << bit
        with pytest.raises(CheckpointError, match=r"damaged"):
            Checkpoint.unpack(bytes(damaged), tmp_path / LAST)


@pytest.mark.parametrize("start", range(0, 1024, 128))
def test_zeroed_sectors_are_refused(content, start, tmp_path):
    with pytest.raises(CheckpointError, match=LAST):
        unpack(content[:start] + bytes(128) + content[start + 128 :], tmp_path)


@pytest.mark.parametrize("appended", [b"\0", b"x" * 100])
def test_anything_appended_is_refused(content, appended, tmp_path):
    with pytest.raises(CheckpointError, match=LAST):
        unpack(content + appended, tmp_path)


def test_two_generations_spliced_are_refused(content, tmp_path):
    other = bytes(make_checkpoint(Progress(step=8, epoch=1, position=4, best=0.75)).pack())
    half = len(content) // 2
    with pytest.raises(CheckpointError, match="damaged"):
        unpack(content[:half] + other[half:], tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (rb"\"format\":2", rb"\"format\":1", "metadata: format: Input should be 2"),
        (rb"\"step\":7", rb"\"step\":-", "metadata"),
        (rb"\"step\":7", rb"\"stop\":7", "metadata: progress.stop"),
        (rb"\"seed\":231", rb"\"seed\":nul", "metadata"),
        (rb'"F32"', rb'"F16"', "unreadable"),
        (rb'"data/scale"', rb'"data/skale"', "unreadable: tensor 'data/skale' is none that"),
        (b"params/linear1.bias", b"params/../../../etc", r"tensor 'params/\.\./\.\./\.\./etc' is none that"),
        (b"params/linear1.bias", b"params/linear1/bias", None),
        (b"params/linear1.bias", rb"params/linear\nbias", r"tensor 'params/linear\\nbias' is none that"),
        (b"statistics/", b"/tatistics/", "tensor '/tatistics/batchnorm1.running_mean' is none that"),
        (rb"\"epoch\":1", rb"\"steps\":1", "metadata: progress.steps"),
        (rb"\"correct\":5,", rb"\"images\":5, ", "'images' stands there twice"),
        (rb"{\"scale\":1.0", rb"{\"scale\":NaN", "metadata: progress.plateau"),
        (rb"\"bad_epochs\"", rb"\"bad\\npoch\"", r"metadata: progress\.plateau\.bad\\npoch: "),
        (b'"F64","shape":[1]', b'"I64","shape":[1]', "data/scale: int64 where finite float64"),
        (rb'"shape":[1,1,3]', rb'"shape":[1,3,1]', None),
        (rb'"shape":[1,1,3]', rb'"shape":[3,1,1]', r"\(1,\), \(3, 1, 1\) are not"),
    ],
)
def test_nonsense_behind_a_right_digest_is_one_line_too(content, old, new, reason, tmp_path):
    assert old in content
    forged = repair_digest(content.replace(old, new))
    if reason is None:
        unpack(forged, tmp_path)
        return
    with pytest.raises(CheckpointError, match=reason) as caught:
        unpack(forged, tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / LAST) in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"last\.safetensors: No such file"):
        load_checkpoint(tmp_path / LAST)


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / LAST)
    with pytest.raises(CheckpointError, match=r"last\.safetensors: not a regular file$"):
        load_checkpoint(tmp_path / LAST)


def test_a_huge_file_that_is_no_checkpoint_is_not_read(tmp_path):
    with (tmp_path / LAST).open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(CheckpointError, match="not a checkpoint of cnnctl"):
        load_checkpoint(tmp_path / LAST)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda arrays: arrays.pop("linear1.bias"), "linear1.bias is missing"),
        (lambda arrays: arrays.update(extra=np.zeros(1)), "extra belongs to another network"),
        (
            lambda arrays: arrays.update({"linear1.bias": np.zeros(3, np.float32)}),
            r"\(3,\) where float32 \(2,\)",
        ),
        (lambda arrays: arrays.update({"linear1.bias": np.zeros(2)}), "float64 .* where float32"),
    ],
)
def test_a_checkpoint_of_another_network_is_refused(change, reason):
    checkpoint, other = make_checkpoint(), make_checkpoint()
    checkpoint.check_fit(other)
    change(checkpoint.params)
    with pytest.raises(CheckpointError, match=reason):
        checkpoint.check_fit(other)


def test_statistics_of_another_network_are_refused():
    checkpoint = make_checkpoint()
    checkpoint.statistics.pop("batchnorm1.running_mean")
    with pytest.raises(CheckpointError, match=r"batchnorm1\.running_mean is missing"):
        checkpoint.check_fit(make_checkpoint())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("key", ["linear1.bias", "v/linear1.weight", "batchnorm1.running_mean"])
def test_finds_what_is_not_finite(key, value):
    checkpoint = make_checkpoint()
    assert checkpoint.find_nonfinite() is None
    groups = (checkpoint.params, checkpoint.statistics, checkpoint.slots)
    next(group for group in groups if key in group)[key].flat[1] = value
    assert checkpoint.find_nonfinite() == key


class TestGenerations:
    @pytest.fixture
    def directory(self, tmp_path):
        for step in (1, 2, 3):
            save_checkpoint(tmp_path, make_checkpoint(Progress(step=step)).pack())
        return tmp_path

    def load_step(self, directory, warnings):
        return load_last_checkpoint(directory, warnings.append).metadata.progress.step

    def test_two_are_kept(self, directory):
        assert sorted(path.name for path in directory.iterdir()) == [PREVIOUS, LAST]
        assert load_checkpoint(directory / PREVIOUS).metadata.progress.step == 2

    def test_the_newest_is_taken_in_silence(self, directory):
        warnings = []
        assert self.load_step(directory, warnings) == 3
        assert warnings == []

    @pytest.mark.parametrize(
        "damage",
        [
            lambda path: path.unlink(),
            lambda path: path.write_bytes(b""),
            lambda path: path.write_bytes(path.read_bytes()[:-1]),
            lambda path: path.write_bytes(bytes(path.stat().st_size)),
        ],
        ids=["missing", "empty", "truncated", "zeroed"],
    )
    def test_the_older_is_taken_with_a_warning_when_the_newer_is_damaged(self, directory, damage):
        damage(directory / LAST)
        warnings = []
        assert self.load_step(directory, warnings) == 2
        assert len(warnings) == 1
        assert LAST in warnings[0]
        assert "of step 2" in warnings[0]

    def test_both_damaged_is_an_error_that_names_both(self, directory):
        for name in (LAST, PREVIOUS):
            (directory / name).write_bytes(b"x")
        with pytest.raises(CheckpointError, match=rf"{LAST}.*{PREVIOUS}"):
            load_last_checkpoint(directory, pytest.fail)


def test_the_header_is_plain_json(content):
    (length,) = struct.unpack("<Q", content[:8])
    metadata = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["cnnctl"])
    assert list(metadata) == ["sha256", "format", "progress", "config", "seed", "engine"]
