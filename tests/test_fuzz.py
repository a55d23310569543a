"""Damaged datasets end in what their files hold, or in one line, and in nothing else.

Each case spoils a sound dataset in one or two places: header fields, bytes of images, values,
keys and text of sidecars, tables, whole files, pipes and links in their place, the scale of images;
or it gives the command an odd output folder, option, environment or sidecar to repeat. FUZZ_CASES
sets the number of cases, which are then others at each run.
"""

import gzip
import io
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from bids_fixtures import DELTA_M, M0, METADATA, PROTOCOL, PULSED, SHAPE, write_dataset
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pictures import draw_nothing

from asl_pinn import models
from asl_pinn.acquisition.encoding import encode, encoding_matrix
from asl_pinn.data import AslData
from asl_pinn.errors import InputError
from asl_pinn.estimators.base import RunContext, estimate_maps
from asl_pinn.estimators.registry import get_estimator
from asl_pinn.io.bids import find_runs, read_run
from asl_pinn.models.choice import default_model
from asl_pinn.workflow.cli import main

CASES = int(os.environ.get("FUZZ_CASES", "40"))
SECONDS = 60

PERF = "sub-01/perf/sub-01"
IMAGES = [
    f"{PERF}_asl.nii.gz",
    f"{PERF}_m0scan.nii.gz",
    "derivatives/masks/sub-01/perf/sub-01_desc-brain_mask.nii.gz",
]
SIDECARS = [f"{PERF}_asl.json", f"{PERF}_m0scan.json", "asl.json", "dataset_description.json"]
TABLE = f"{PERF}_aslcontext.tsv"
ENCODING = {
    "LabelingDuration": 2.0,
    "PostLabelingDelay": 0.25,
    "TimeEncodedMatrixSize": 4,
    "TimeEncodedMatrixType": "hadamard",
    "TimeEncodedSubBolusDurations": PROTOCOL.label_duration.tolist(),
    "TimeEncodedSignFlip": False,
}
ASL_KEYS = sorted(
    {*METADATA, *ENCODING, *PULSED, "VascularCrushingVENC"}
    | {"TimeEncodedMatrix", "SliceTiming", "SliceEncodingDirection", "M0Estimate"}
    | {"BackgroundSuppressionNumberPulses", "LookLocker", "RepetitionTime"}
)
KEYS = [
    *((f"{PERF}_asl.json", key) for key in ASL_KEYS),
    *((f"{PERF}_m0scan.json", key) for key in ("IntendedFor", "RepetitionTimePreparation") * 2),
    (f"{PERF}_m0scan.json", "RepetitionTime"),
    *(("asl.json", key) for key in ("SliceTiming", "M0Type")),
    ("dataset_description.json", "Name"),
    ("dataset_description.json", "BIDSVersion"),
]
"""What is read from which sidecar."""

KINDS = {
    "deltam": {},
    "pairs": {
        "volumes": np.concatenate([500.0 + DELTA_M, np.full_like(DELTA_M, 500.0)], -1),
        "types": ("control",) * 3 + ("label",) * 3,
        "metadata": {
            "LabelingDuration": PROTOCOL.label_duration.tolist() * 2,
            "PostLabelingDelay": PROTOCOL.pld.tolist() * 2,
        },
    },
    "pulsed": {"metadata": PULSED},
    "encoded": {
        "volumes": encode(DELTA_M, np.full(SHAPE, 500.0), encoding_matrix(4)).astype(np.float32),
        "types": ("control", "label", "label", "label"),
        "metadata": ENCODING,
    },
}

Damage = Callable[[Path], None]


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    """One sound dataset of each kind."""
    root = tmp_path_factory.mktemp("sound")
    for kind, content in KINDS.items():
        write_dataset(root / kind, **content)
    return root


def existing(change: Callable[[Path], None]) -> Callable[[Path], None]:
    """The same, but nothing where another damage has taken the file away."""

    def changed(path: Path) -> None:
        if path.is_file():
            change(path)

    return changed


def raw(path: Path) -> bytearray:
    try:
        return bytearray(gzip.decompress(path.read_bytes()))
    except (OSError, EOFError, gzip.zlib.error):
        return bytearray(path.read_bytes())


def set_field(name: str, index: int, value: float) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        content = raw(path)
        if len(content) < 348:
            return
        header = np.frombuffer(content[:348], nib.nifti1.header_dtype)[0].copy()
        field = np.atleast_1d(header[name])
        with np.errstate(all="ignore"):
            bounds = np.iinfo(field.dtype) if field.dtype.kind in "iu" else None
            clipped = (
                value
                if bounds is None
                else int(np.clip(np.nan_to_num(value), bounds.min, bounds.max))
            )
            field[index % field.size] = clipped
        header[name] = field if header[name].shape else field[0]
        path.write_bytes(gzip.compress(header.tobytes() + bytes(content[348:]), 1))

    return existing(change)


def set_bytes(position: float, new: bytes, *, inside: bool) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        content = raw(path) if inside else bytearray(path.read_bytes())
        begin = int(position * len(content))
        content[begin : begin + len(new)] = new
        path.write_bytes(gzip.compress(bytes(content), 1) if inside else bytes(content))

    return existing(change)


def cut(fraction: float) -> Callable[[Path], None]:
    return existing(lambda path: path.write_bytes(path.read_bytes()[: int(fraction * 300)]))


def set_key(key: str, value: object) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        try:
            content = json.loads(path.read_text()) if path.is_file() else {}
        except ValueError:
            return
        path.write_text(json.dumps({**content, key: value}))

    return change


def drop_key(key: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        try:
            content = json.loads(path.read_text())
        except ValueError:
            return
        path.write_text(json.dumps({k: v for k, v in content.items() if k != key}))

    return existing(change)


POSITIONS = st.floats(0.0, 1.0)
NUMBERS = st.one_of(
    st.sampled_from([0, -1, 1, 0.5, 1800, 1e12, 1e300, 2**70, float("nan"), float("inf")]),
    st.integers(-5, 40),
    st.floats(-4.0, 4.0),
)
WORDS = st.sampled_from(
    ["walsh", "custom", "2D", "3D", "k-", "Absent", "Included", "Estimate", "CASL", "PASL", "true"]
    + ["../../../etc/passwd", "bids::../../secret.nii.gz", "/dev/zero", "__import__('os')", ""]
)
JUNK = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.just(10**400), WORDS, st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=7), st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=7,
)
FIELDS = st.sampled_from(
    ["dim", "dim", "dim", "datatype", "bitpix", "vox_offset", "scl_slope", "scl_inter", "pixdim"]
    + ["qform_code", "sform_code", "quatern_b", "srow_x", "srow_z", "sizeof_hdr"]
    + ["xyzt_units", "qoffset_x"]
)


@st.composite
def damages(draw) -> list[tuple[str, Damage]]:
    """One or two places to spoil: the file, and what to do to it."""
    image, keys = st.sampled_from(IMAGES), st.sampled_from(KEYS)
    everything = st.sampled_from([*IMAGES, *SIDECARS, TABLE])
    types = st.lists(
        st.sampled_from(["control", "label", "deltam", "m0scan", "noRF", "cbf", "n/a", ""])
    )
    anything = st.binary(min_size=1, max_size=4)
    one = st.one_of(
        st.tuples(
            image,
            st.builds(
                set_field,
                FIELDS,
                st.integers(0, 7),
                st.one_of(NUMBERS, st.sampled_from([32767, -32768, 2, 4, 8, 16, 64, 128, 512])),
            ),
        ),
        st.tuples(image, st.builds(set_bytes, POSITIONS, anything, inside=st.booleans())),
        st.tuples(image, st.builds(set_bytes, st.floats(0.0, 0.3), anything, inside=st.just(True))),
        st.builds(lambda key, value: (key[0], set_key(key[1], value)), keys, JUNK),
        st.builds(lambda key, value: (key[0], set_key(key[1], value)), keys, NUMBERS),
        keys.map(lambda key: (key[0], drop_key(key[1]))),
        st.tuples(
            st.sampled_from([*SIDECARS, TABLE]),
            st.builds(set_bytes, POSITIONS, anything, inside=st.just(False)),
        ),
        st.tuples(
            st.just(TABLE),
            types.map(lambda rows: lambda path: path.write_text("\n".join(["volume_type", *rows]))),
        ),
        st.tuples(everything, st.builds(cut, POSITIONS)),
        st.tuples(everything, st.just(lambda path: path.unlink(missing_ok=True))),
    )
    return draw(st.lists(one, min_size=1, max_size=2))


@contextmanager
def limited_time() -> Iterator[None]:
    """Fail what does not end: by processor time, and, if it sleeps, as on a pipe, by the clock."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt(f"still at work after {SECONDS} s of processor time")

    timers = (
        (signal.SIGPROF, signal.ITIMER_PROF, SECONDS),
        (signal.SIGALRM, signal.ITIMER_REAL, 5 * SECONDS),
    )
    previous = [(number, signal.signal(number, stop)) for number, *_ in timers]
    for _, timer, seconds in timers:
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for _, timer, _ in timers:
            signal.setitimer(timer, 0.0)
        for number, handler in previous:
            signal.signal(number, handler)


def spoiled(sound: Path, place: Path, kind: str, damage: list[tuple[str, Damage]]) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(sound / kind, place)
    for name, change in damage:
        change(place / name)
    return place


def expected(root: Path) -> tuple[NDArray, NDArray, NDArray]:
    """Differences, label durations and delays of the files, read in another, plain way."""
    with np.errstate(all="ignore"):
        values = nib.load(root / IMAGES[0]).get_fdata()
    values = values[..., None] if values.ndim == 3 else values
    keys = {}
    for sidecar in ("asl.json", f"{PERF}_asl.json"):
        if (root / sidecar).is_file():
            keys |= json.loads((root / sidecar).read_text(encoding="utf-8-sig"))
    lines = (root / TABLE).read_text(encoding="utf-8-sig").splitlines()
    column = lines[0].split("\t").index("volume_type")
    types = np.array([line.split("\t")[column].strip().lower() for line in lines[1:] if line])
    used = ~np.isin(types, ["m0scan", "norf", "n/a"])
    pulsed = keys["ArterialSpinLabelingType"] == "PASL"
    stated = np.atleast_1d(keys["BolusCutOffDelayTime"])[0] if pulsed else keys["LabelingDuration"]
    durations, plds = (
        np.broadcast_to(np.float64(times), len(types))[used]
        for times in (stated, keys["PostLabelingDelay"])
    )
    plds = plds - pulsed * durations
    values, types = values[..., used], types[used]
    if "deltam" not in types and {"TimeEncodedMatrixSize", "TimeEncodedMatrix"} & set(keys):
        matrix = keys.get("TimeEncodedMatrix")
        matrix = encoding_matrix(4, keys["TimeEncodedMatrixType"]) if matrix is None else matrix
        sign = -1.0 if keys.get("TimeEncodedSignFlip") else 1.0
        tau = np.float64(keys["TimeEncodedSubBolusDurations"])
        delays = plds[0] + np.array([tau[i + 1 :].sum() for i in range(len(tau))])
        n_cycles = values.shape[-1] // 4
        stacked = np.tile(np.asarray(matrix, np.float64), (n_cycles, 1))
        return sign * values @ stacked * 2.0 / (4 * n_cycles), tau, delays
    timings = list(dict.fromkeys(zip(durations.round(4), plds.round(4), strict=True)))
    delta_m = []
    for timing in timings:
        here = (durations.round(4) == timing[0]) & (plds.round(4) == timing[1])
        positive = values[..., here & (types != "label")].mean(axis=-1)
        negative = values[..., here & (types == "label")]
        delta_m.append(positive - (negative.mean(axis=-1) if negative.shape[-1] else 0.0))
    return np.stack(delta_m, -1), *np.array(timings).T


def check_message(error: InputError) -> None:
    assert "\n" not in str(error)
    assert len(str(error)) < 1000


def check_data(data: AslData, root: Path) -> None:
    delta_m, durations, plds = expected(root)
    valid = data.valid
    assert valid.any()
    scale = max(float(np.abs(delta_m[valid]).max()), 1e-30)
    images = nib.load(root / IMAGES[0])
    offset = float(np.abs(np.asarray(images.dataobj)[valid]).max())
    np.testing.assert_allclose(
        data.delta_m[valid], delta_m[valid], rtol=1e-4, atol=1e-5 * max(scale, offset)
    )
    np.testing.assert_allclose(data.protocol.label_duration, durations, atol=1e-4)
    np.testing.assert_allclose(data.protocol.pld, plds, atol=1e-4)
    np.testing.assert_allclose(data.affine, images.affine)
    assert (data.m0[valid] > 0.0).all()
    assert 0.0 < data.protocol.labeling_efficiency <= 1.0


def check_maps(data: AslData) -> None:
    model = models.get(default_model(data.protocol))
    model = model if data.protocol.n_delays >= 3 else models.fix(model, att=1.2)
    estimator = get_estimator("nlls")
    try:
        maps = estimate_maps(data, "nlls", estimator, model, estimator.options(), RunContext())
    except InputError as error:
        check_message(error)
        return
    for p in model.parameters:
        assert np.isfinite(maps[p.name]).all()
        assert (maps[p.name][~data.valid] == 0.0).all()
        assert maps[p.name][data.valid].min() >= p.lower * 0.9999
        assert maps[p.name].max() <= p.upper * 1.0001


FUZZ = settings(
    suppress_health_check=list(HealthCheck),
    derandomize="FUZZ_CASES" not in os.environ,
    phases=[Phase.generate],  # a case says enough as it is, and to find the least takes long
    deadline=None,
)


@settings(FUZZ, max_examples=CASES)
@given(kind=st.sampled_from(sorted(KINDS)), damage=damages())
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_dataset_is_read_as_its_files_are_or_refused(sound, kind, damage):
    root = spoiled(sound, sound.with_name("spoiled"), kind, damage)
    with limited_time():
        try:
            runs = find_runs(root)
            data, _ = read_run(runs[0])
        except InputError as error:
            event("refused")
            check_message(error)
        else:
            event("read")
            check_data(data, root)
            check_maps(data)


@settings(FUZZ, max_examples=max(CASES // 20, 2))
@given(kind=st.sampled_from(sorted(KINDS)), damage=damages())
@pytest.mark.filterwarnings("ignore")
def test_the_command_line_ends_with_maps_or_with_one_line(sound, kind, damage):
    root = spoiled(sound, sound.with_name("spoiled"), kind, damage)
    output = sound.with_name("output")
    shutil.rmtree(output, ignore_errors=True)
    with limited_time(), redirect_stderr(io.StringIO()) as printed:
        status = main(
            ["asl-pinn", "quantify", str(root), str(output), "participant", "--method=nlls"]
        )
    maps = list(output.rglob("*_cbf.nii.gz"))
    told = [line for line in printed.getvalue().splitlines() if ": note: " not in line]
    assert len(told) == 1 if status == 2 else status == 1 or not told
    unusable = any(": unusable: " in line for line in told)
    assert (status, bool(maps)) in ((0, True), (1, unusable), (2, False))


def put_special(what: str) -> Damage:
    """Put something that is no regular file in the place of one."""

    def change(path: Path) -> None:
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
        if what == "pipe":
            os.mkfifo(path)
        elif what == "folder":
            path.mkdir()
        elif what == "itself":
            path.symlink_to(path)
        else:
            path.symlink_to(what)

    return change


def rescale(factor: float) -> Damage:
    """Multiply the voxels of an image, as far as its type holds them."""

    def change(path: Path) -> None:
        image = nib.load(path)
        with np.errstate(all="ignore"):
            values = (image.get_fdata() * factor).astype(np.float32)
        nib.save(nib.Nifti1Image(values, image.affine), path)

    return existing(change)


SPECIAL = st.builds(
    lambda name, what: (name, put_special(what)),
    st.sampled_from([*IMAGES, *SIDECARS, TABLE, "layout_config.json", "participants.tsv"]),
    st.sampled_from(["pipe", "folder", "itself", "/dev/zero", "/dev/null", "/nowhere", "/etc"]),
)
SCALED = st.builds(
    lambda name, exponent: (name, rescale(10.0**exponent)),
    st.sampled_from(IMAGES),
    st.sampled_from([-45, -30, -20, -5, -1, 1, 5, 20, 30, 38, 45]),
)
OUTPUTS = st.sampled_from(
    [
        "",
        ".",
        "in",
        "x" * 300,
        "/".join(["y" * 200] * 30),
        "a\nb",
        "a\udcff",
        "\x1b[31m",
        "$\\foo{$",
    ]
    + ["file", "file/below", "pipe", "loop", "dangling", "/proc/1/out", "/dev/null", "in/sub-01"]
)
OPTIONS = st.sampled_from(
    ["--bounds=att=:inf", "--bounds=att=:1e12", "--bounds=cbf=nan:", "--grid=1000000000000"]
    + ["--grid=-1", "--chunk_size=0", "--chunk_size=1e9", "--f_scale=inf", "--f_scale=-1"]
    + ["--xtol=nan", "--max_steps=0", "--min_fraction=-inf", "--prior=att=nan:1", "--fix=att=30"]
    + ["--seed=-1", "--seed=99999999999999999999", "--n_jobs=0", "--t1_blood=1e-30", "--mask="]
    + ["--mask=.", "--mask=pipe", "--t1_tissue=/dev/zero", "--participant_label=../..", "--model="]
    + [
        "--fix=att=4",
        "--keep_sign",
        "--keep_going",
        "--dtype=float16",
        "--gm=loop",
        "--wm=dangling",
    ]
)
ENVIRONMENTS = st.fixed_dictionaries(
    {},
    optional={
        "HOME": st.sampled_from(["/nowhere", "/dev/null", ""]),
        "XDG_CACHE_HOME": st.sampled_from(["/dev/null", "relative", ""]),
        "TMPDIR": st.just("/nowhere"),
        "COLUMNS": st.sampled_from(["0", "-1", "x"]),
        "LC_ALL": st.just("C"),
        "TZ": st.just("Nowhere/Else"),
    },
)


def call(*arguments: str) -> tuple[int, list[str]]:
    """Status of a command, and its lines on standard error that are no notes."""
    printed = io.StringIO()
    with limited_time(), redirect_stderr(printed), redirect_stdout(io.StringIO()):
        status = main(["asl-pinn", *arguments])
    told = [line for line in printed.getvalue().splitlines() if "note: " not in line]
    assert not any("Traceback" in line for line in told)
    assert len(told) == 1 if status == 2 else status == 1 or not told or "unusable" in told[0]
    return status, told


def fresh(sound: Path, kind: str, damage: list[tuple[str, Damage]]) -> Path:
    """A folder with a dataset in `in`, and odd things to name as outputs."""
    place = sound.with_name("circumstances")
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    spoiled(sound, place / "in", kind, damage)
    (place / "file").write_text("mine")
    os.mkfifo(place / "pipe")
    (place / "loop").symlink_to("loop")
    (place / "dangling").symlink_to("nothing")
    return place


@settings(FUZZ, max_examples=max(CASES // 10, 4))
@given(
    kind=st.sampled_from(sorted(KINDS)),
    damage=st.one_of(st.just([]), st.lists(st.one_of(SPECIAL, SCALED), min_size=1, max_size=2)),
    output=st.one_of(st.just("out"), OUTPUTS),
    options=st.lists(OPTIONS, max_size=2),
    environment=ENVIRONMENTS,
)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("plain_pictures")
def test_odd_circumstances_end_with_maps_or_with_one_line(
    sound, kind, damage, output, options, environment
):
    place = fresh(sound, kind, damage)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for name, value in environment.items():
            patch.setenv(name, value)
        status, _ = call("quantify", "in", output, "participant", "--method=nlls", *options)
        inspected, _ = call("inspect", "in")
    assert (place / "file").read_text() == "mine"
    assert not list(place.rglob("*.part"))
    assert inspected in (0, 1, 2)
    event(f"status {status}")


@pytest.fixture(scope="module")
def made(sound) -> Path:
    """Maps of a sound dataset."""
    output = sound.with_name("made")
    where = [str(sound / "deltam"), str(output), "participant"]
    with pytest.MonkeyPatch.context() as patch:
        draw_nothing(patch)
        assert main(["asl-pinn", "quantify", *where, "--method=nlls", "--model=buxton"]) == 0
    return output


FROM_KEYS = ["Method", "Model", "Bounds", "Priors", "Fixed", "Options", "Seed", "DataType"]
FROM_KEYS += ["Reading", "InputDataset", "SourceChecksums", "InputFingerprint", "ModelChoice"]
FROM_KEYS += ["Device", "SoftwareVersions", "compilation_cache", "scheduler", "checkpoint_dir"]
PLACES = st.sampled_from(
    [
        "/etc/passwd",
        "bids::../x",
        "file:///dev/zero",
        "file://[",
        "\ud800",
        "a\0b",
        "",
        "/dev/stdin",
    ]
)


@settings(FUZZ, max_examples=max(CASES // 10, 4))
@given(
    key=st.sampled_from(FROM_KEYS),
    inner=st.one_of(st.none(), st.sampled_from(["mask", "att", "grid", "scheduler", "n_jobs"])),
    value=st.one_of(JUNK, NUMBERS, PLACES, st.dictionaries(PLACES, JUNK, max_size=2)),
)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("plain_pictures")
def test_sidecars_to_repeat_end_with_maps_or_with_one_line(made, key, inner, value):
    sidecar = made / f"{PERF}_desc-nlls_cbf.json"
    origin = json.loads(sidecar.read_text())
    if inner is not None and isinstance(origin.get(key), dict):
        value = {**origin[key], inner: value}
    copy = made / f"{PERF}_copy.json"
    copy.write_text(json.dumps({**origin, key: value}))
    output = made.with_name("again")
    shutil.rmtree(output, ignore_errors=True)
    status, _ = call("quantify", f"--from={copy}", str(output))
    assert status in (0, 2)
    event(f"status {status}")


def test_a_sound_dataset_of_each_kind_is_read(sound):
    for kind in KINDS:
        data, _ = read_run(find_runs(sound / kind)[0])
        np.testing.assert_allclose(data.delta_m, DELTA_M, atol=1e-3)
        np.testing.assert_array_equal(data.m0, M0)
        check_data(data, sound / kind)
        check_maps(data)
