"""Run the tests behind the page "What recseg promises": `python book/promises.py` writes data/results/promises.json.

Each promise lists the tests that verify it, which fail if it is broken. What a test measures on the way (kills, cases,
growth of memory) it records as a property. If `RECSEG_OTHER_PYTHON` names the interpreter of another environment, that
is tested too. Takes an hour on two cores; `--only WORD` runs the promises that contain the word, and keeps the earlier
results of the others.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from recseg.evaluation.results import write_result

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "data" / "results" / "promises.json"
PROMISES: dict[str, list[str]] = {
    "A run killed at any moment and resumed ends as if it had been left alone, bit for bit": ["test_kills.py"],
    "24 interruptions in a row change nothing": ["test_soak.py::test_24_restarts_end_as_one_training"],
    "Ctrl-C, a full disk, a folder turned read-only, vanished data: one line, and the last checkpoint stays": [
        "test_faults.py"
    ],
    "A dead reader, a bad image, a number that is none: named with its image": ["test_bad_pictures.py"],
    "A run goes on from any folder and on any machine, and with no other data than it began with": ["test_resume.py"],
    "Of two trainings that begin at once in one folder, one is refused before it writes": [
        "test_resume.py::test_of_two_trainings_that_begin_at_once_one_is_refused",
        "test_resume.py::test_of_two_sets_of_pictograms_in_one_folder_one_is_refused",
        "test_outputs.py::test_a_name_that_must_be_new_is_taken_once",
    ],
    "Links are followed, devices and pipes are written into, and no command writes over what it reads": [
        "test_outputs.py"
    ],
    "What could not be read back is not written: names of classes, facts about weights": [
        "test_data_messages.py::test_names_that_cannot_be_read_back_are_refused_at_the_start",
        "test_data_messages.py::test_only_lists_of_names_are_written",
        "test_data_messages.py::test_names_of_any_script_come_back",
        "test_data_messages.py::test_metadata_that_cannot_be_read_back_are_not_written",
    ],
    "What is wrong with a data folder is named by its cause": ["test_data_messages.py"],
    "An export of an annotation tool gives the label maps that it was made from, or one line and no folder": [
        "test_import.py",
        "test_import_shapes.py",
        "test_import_faults.py",
    ],
    "Bad input gives the right result or one line that names the file, never a traceback": [
        "test_bad_input.py",
        "test_cli_process.py",
    ],
    "The same image gives the same answer, as a file, opened or as an array; what may be read in two ways is refused": [
        "test_prediction.py"
    ],
    "Threads may share a network, in training too, and what the process has set for images and warnings stays": [
        "test_prediction.py::test_threads_share_a_network",
        "test_prediction.py::test_a_network_in_training_is_not_touched_meanwhile",
        "test_prediction.py::test_a_network_that_another_thread_puts_into_training_is_refused",
        "test_prediction.py::test_threads_leave_what_the_process_has_set",
    ],
    "A network in 8 bits gives the same answer on processors with and without VNNI": [
        "test_export.py::test_two_products_of_eight_bits_fit_into_sixteen",
    ],
    "A large image in windows keeps what is small, and what the network takes does not grow with the image's height": [
        "test_tiling.py"
    ],
    "A report asks nothing of any server and runs no script, whatever classes and files are called": [
        "test_report.py::test_the_page_asks_nothing_of_others_and_runs_nothing",
        "test_report.py::test_names_are_words_and_never_markup",
    ],
    "Outputs of a folder of images never clash, and are not taken for images the next time": [
        "test_predict_many.py::test_names_of_outputs_never_clash",
        "test_predict_many.py::test_outputs_are_not_taken_for_images_the_next_time",
    ],
    "Weights are numbers only: nothing is unpickled, nothing forged is used": ["test_safe_files.py"],
    "A download is checked before it is used, and never stands half under its name": [
        "test_download.py",
        "test_download_tls.py",
    ],
    "The answer is the same alone or in a batch, on one thread or two, compiled, exported, on another Python": [
        "test_same_answer.py"
    ],
    "A training list that shares an image with the validation list is found out, whatever the image's name": [
        "test_duplicates.py"
    ],
    "Scores are measured in eval(), whatever mode a network is handed over in": [
        "test_evaluation.py::test_a_network_in_training_mode_is_scored_as_any_other",
        "test_evaluation.py::test_modes_and_statistics_are_left_alone",
        "test_prediction.py::test_every_module_gets_its_own_mode_back",
    ],
    "A published score names data, list, commit and seed, and is found again": ["test_verification.py"],
    "What differs between two builds of the book is seen, pixel by pixel": ["test_reproducible_book.py"],
    "Every version is pinned, its licence listed, and a check for known faults never passes in silence": [
        "test_licences.py",
        "test_audit.py",
        "test_packaging.py::test_every_dependency_is_pinned_within_its_bounds",
    ],
    "Memory stays flat over 1,000 predictions": ["test_soak.py::test_a_thousand_predictions_in_flat_memory"],
}


def run(tests: list[str]) -> dict[str, Any]:
    """Outcomes of the tests, and the properties they recorded; numbers with the same name are added up."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
        subprocess.run([*command, *(f"tests/{test}" for test in tests)], cwd=ROOT, check=False, env=os.environ)
        cases = list(ElementTree.parse(report).iter("testcase"))  # noqa: S314 - pytest's own
    kinds = ("failure", "error", "skipped")
    counted = {kind: sum(case.find(kind) is not None for case in cases) for kind in kinds}
    figures: dict[str, Any] = {}
    for found in (entry for case in cases for entry in case.iter("property")):
        name, value = found.get("name", ""), found.get("value", "")
        if value.isdigit():
            figures[name] = figures.get(name, 0) + int(value)
        else:
            figures[name] = f"{figures[name]}, {value}" if name in figures else value
    return {
        "tests": tests,
        "passed": len(cases) - sum(counted.values()),
        "failed": counted["failure"] + counted["error"],
        "skipped": counted["skipped"],
        "seconds": round(sum(float(case.get("time", 0)) for case in cases)),
        "figures": figures,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", metavar="WORD", default="")
    word = parser.parse_args().only
    before = json.loads(RESULT.read_text(encoding="utf-8"))["promises"] if RESULT.exists() else {}
    table = {promise: before.get(promise) or {"tests": tests, "passed": None} for promise, tests in PROMISES.items()}
    for promise, tests in PROMISES.items():
        if word in promise:
            table[promise] = run(tests)
    write_result(RESULT, {"promises": table})
    return int(any(row.get("failed") for row in table.values()))


if __name__ == "__main__":
    sys.exit(main())
