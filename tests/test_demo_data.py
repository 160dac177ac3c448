"""The demo data: checked before they are opened, split without overlap; and every shipped configuration is valid."""

import csv
import gzip
import hashlib
import io
import subprocess
import sys
import tarfile
from pathlib import Path

import demo_data
import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from demo_data import DemoDataError, Row

from nlptrain.config.load import load

CONFIGS = Path(__file__).parents[1] / "configs"
CARDS = sorted(CONFIGS.glob("*.yaml"))
LAUNCHERS = sorted((CONFIGS / "accelerate").glob("*.yaml"))
INNER = "hutto_ICWSM_2014/{}_GroundTruth.txt"


def _tar(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def _sdist(tweets: str = "1\t1.5\tfine\r\n2\t-1\tbad", reviews: str = "1_1\t2\tgood") -> bytes:
    files = {INNER.format("tweets"): tweets.encode(), INNER.format("amazonReviewSnippets"): reviews.encode()}
    return _tar({demo_data.OUTER: _tar(files)})


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read(sdist: bytes) -> list[Row]:
    return demo_data.read(sdist, _sha256(sdist))


def _make(folder: Path, sdist: bytes) -> bool:
    return demo_data.make(folder, lambda: sdist, _sha256(sdist))


def test_rows_are_read_as_the_source_has_them() -> None:
    rows = _read(_sdist(tweets='7\t-0.25\tÉ &amp; \u2028 "quoted"  \r\n', reviews="3_12\t1\ta"))
    assert rows == [Row("7", "tweets", 'É &amp; \u2028 "quoted"  ', "-0.25"), Row("3_12", "reviews", "a", "1")]


def test_sentences_of_one_review_stay_in_one_split() -> None:
    rows = [
        Row(f"{review}_{snippet}", "reviews", f"{review} {snippet}", "1")
        for review in range(90)
        for snippet in range(3)
    ]
    parts = demo_data.split(rows)
    places = {(row.id.split("_")[0], name) for name, part in parts.items() for row in part}
    assert len(places) == 90
    assert sorted(row for part in parts.values() for row in part) == sorted(rows)


def test_equal_texts_stay_in_one_split_through_chains_of_groups() -> None:
    # Review n shares a text with review n + 1 only, so all belong together; case, spaces and Unicode form do not count.
    texts = ["Caf\u00e9 {}", " cafe\u0301  {}"]
    rows = [Row(f"{n}_{side}", "reviews", texts[side].format(n + side), "1") for n in range(60) for side in (0, 1)]
    alone = [Row(str(n), "tweets", f"tweet {n}", "1") for n in range(60)]
    parts = demo_data.split([*rows, *alone])
    assert sum(any(row.source == "reviews" for row in part) for part in parts.values()) == 1
    assert all(any(row.source == "tweets" for row in part) for part in parts.values())


def test_split_does_not_depend_on_other_rows_or_their_order() -> None:
    rows = [Row(str(n), "tweets", f"text {n}", "1") for n in range(2000)]
    parts = demo_data.split(rows)
    again = demo_data.split(reversed(rows[:500]))
    assert all(set(again[name]) == set(parts[name]) & set(rows[:500]) for name in parts)
    assert [round(len(parts[name]) / 2000, 1) for name in demo_data.SPLITS] == [0.8, 0.1, 0.1]


def test_zero_ratings_are_dropped_and_counted_and_the_sign_is_the_label(tmp_path: Path) -> None:
    _make(tmp_path, _sdist(tweets="1\t0\tzero\n2\t-0.0\tzero too\n3\t0.01\tup\n4\t-0.01\tdown"))
    rows = [
        row for name in demo_data.SPLITS for row in csv.DictReader((tmp_path / f"{name}.csv").open(encoding="utf-8"))
    ]
    labels = {row["text"]: (row["label"], row["rating"]) for row in rows}
    assert labels == {"up": ("positive", "0.01"), "down": ("negative", "-0.01"), "good": ("positive", "2")}
    assert "dropped  2 rows" in (tmp_path / "README.txt").read_text()


def test_a_file_with_another_hash_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    wrong = b"not even an archive"
    with pytest.raises(DemoDataError, match=f"{demo_data.SHA256}, found {_sha256(wrong)}"):
        demo_data.make(tmp_path / "data", lambda: wrong)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("line", ["1\t1.5", "1\t1.5\t ", "x\t1\ttext", "1\tnan\ttext", "1_2_3\t1\ttext", "1 1 text"])
def test_a_malformed_line_is_named(line: str) -> None:
    with pytest.raises(DemoDataError, match="tweets, line 2: "):
        _read(_sdist(tweets=f"1\t1\tfine\n{line}\n"))


def test_links_and_oversized_members_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    link = tarfile.TarInfo(demo_data.OUTER)
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
    for sdist in (gzip.compress(link.tobuf() + bytes(1024)), _tar({"elsewhere/" + demo_data.OUTER: b""})):
        with pytest.raises(DemoDataError, match="expected one plain file"):
            _read(sdist)
    monkeypatch.setattr(demo_data, "MAX_MEMBER_BYTES", 10)
    with pytest.raises(DemoDataError, match="at most 10 bytes"):
        _read(_sdist())


def test_a_second_call_fetches_and_writes_nothing_until_a_file_changes(tmp_path: Path) -> None:
    assert _make(tmp_path, _sdist())
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.iterdir()}
    assert not demo_data.make(tmp_path, lambda: pytest.fail("fetched again"))
    assert {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.iterdir()} == before
    (tmp_path / "test.csv").write_text("changed")
    assert _make(tmp_path, _sdist())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {k: v[1] for k, v in before.items()}


def test_without_an_index_the_command_says_one_sentence(tmp_path: Path) -> None:
    nowhere = {"PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1", "PIP_NO_CACHE_DIR": "1", "PATH": "/usr/bin:/bin"}
    command = [sys.executable, demo_data.__file__, str(tmp_path / "data")]
    done = subprocess.run(command, env=nowhere, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert done.stderr.startswith("demo_data: error: pip could not fetch vaderSentiment==3.3.2 (it says: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_every_card_is_valid_and_its_first_line_starts_it(path: Path) -> None:
    config = load(path)
    assert path.read_text().startswith(f"# nlptrain train configs/{path.name}")
    assert config.training["output_dir"].split("/")[0] in ("runs", "demo")


def test_no_two_cards_write_to_one_folder() -> None:
    folders = [load(path).training["output_dir"] for path in CARDS]
    assert len(set(folders)) == len(CARDS) >= 8


@pytest.mark.parametrize("path", LAUNCHERS, ids=lambda path: path.stem)
def test_the_launcher_takes_the_machines_and_processes_of_its_file(path: Path) -> None:
    config = load_config_from_file(str(path))
    args = launch_command_parser().parse_args(["--config_file", str(path), "--num_processes", "6", "train.py"])
    checked, _, _ = _validate_launch_command(args)
    assert (checked.num_processes, checked.num_machines) == (6, config.num_machines)
    assert (checked.use_fsdp, checked.multi_gpu) == (
        path.stem == "fsdp2",
        path.stem in ("cpu", "multi_gpu", "two_nodes"),
    )


@pytest.mark.parametrize("path", LAUNCHERS, ids=lambda path: path.stem)
def test_launcher_files_leave_precision_and_compilation_to_the_run_and_say_how_to_start(path: Path) -> None:
    config = load_config_from_file(str(path))
    assert (config.mixed_precision, config.dynamo_config) == ("no", {"dynamo_backend": "NO"})
    assert f"accelerate launch --config_file configs/accelerate/{path.name}" in path.read_text()


@pytest.mark.distributed
def test_the_cpu_file_starts_two_processes_that_know_each_other(tmp_path: Path) -> None:
    script = tmp_path / "count.py"
    script.write_text(
        # one write each, so that the two lines cannot run into each other
        "import os\nfrom accelerate import PartialState\ns = PartialState(cpu=True)\n"
        "os.write(1, f'{s.num_processes} {s.process_index}\\n'.encode())\n"
    )
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        str(CONFIGS / "accelerate/cpu.yaml"),
    ]
    done = subprocess.run(
        [*command, "--main_process_port", "0", str(script)], capture_output=True, text=True, check=True
    )
    assert sorted(done.stdout.split("\n")[:2]) == ["2 0", "2 1"]
