"""Scripts without a main guard get one error, and code that ends the program ends only its task."""

import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT

from dissect_xr.errors import BlocksFailed, DissectError
from dissect_xr.parallel.guard import contained
from dissect_xr.parallel.pool import Threads, run_blocks, run_tasks

POOL = "with dx.open_pool(workers=1) as pool:\n        print('opened', pool.workers)\n"

UNGUARDED = {
    "with": f"if True:\n    {POOL}",
    "function": f"def main():\n    {POOL}main()\n",
    "loop": f"for _ in range(2):\n    {POOL}",
    "after a guard": f"if __name__ == '__main__':\n    pass\nif True:\n    {POOL}",
    "in a branch of another condition": f"import logging\nlogging.getLogger(__name__)\nif True:\n    {POOL}",
}

GUARDED = {
    "if": f"if __name__ == '__main__':\n    {POOL}",
    "function": f"def main():\n    {POOL}if '__main__' == __name__:\n    main()\n",
    "expression": f"def main():\n    {POOL}__name__ == '__main__' and main()\n",
}


def run(folder: Path, text: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "script.py").write_text(f"import dissect_xr as dx\n{text}")
    command = [sys.executable, *options] if options else [sys.executable, "script.py"]
    environment = {"PYTHONPATH": f"{ROOT}:{folder}", "PATH": "", "HOME": str(folder)}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.parametrize("text", UNGUARDED.values(), ids=UNGUARDED)
def test_a_script_without_a_guard_gets_one_error_that_names_it(tmp_path, text):
    found = run(tmp_path, text)
    assert found.returncode == 1
    assert found.stdout == ""
    assert found.stderr.count("Traceback") == 1
    error = found.stderr[found.stderr.index("DissectError") :]
    assert "script.py, line " in error
    assert 'if __name__ == "__main__":' in error


@pytest.mark.slow
@pytest.mark.parametrize("text", GUARDED.values(), ids=GUARDED)
def test_a_script_with_a_guard_opens_a_pool(tmp_path, text):
    found = run(tmp_path, text)
    assert (found.returncode, found.stdout, found.stderr) == (0, "opened 1\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("options", [("-m", "script"), ("-c", f"import dissect_xr as dx\nif True:\n    {POOL}")])
def test_python_with_options(tmp_path, options):
    """`-m script` is imported again by workers, `-c` is not."""
    found = run(tmp_path, UNGUARDED["with"], *options)
    if options[0] == "-c":
        assert (found.returncode, found.stdout) == (0, "opened 1\n")
    else:
        assert "script.py, line 3: worker processes import this script" in found.stderr
        assert found.stderr.count("Traceback") == 1


def exits(task: int) -> int:
    if task == 2:
        sys.exit(task)
    return task


def test_a_task_that_ends_the_program_fails_alone():
    done = []
    with pytest.raises(BlocksFailed, match=r"tried to end the program \(exit code 2\)") as caught:
        done.extend(result for _, result in run_blocks(Threads(1), exits, range(4)))
    assert len(caught.value.failures) == 1
    assert "failed 3 times" not in str(caught.value)
    assert sorted(done) == [0, 1, 3]
    with pytest.raises(DissectError, match="tried to end the program"):
        list(run_tasks(Threads(1), exits, [2]))
    assert contained(exits, 1) == 1


def test_a_worker_process_outlives_it(processes):
    pids = processes.client.nthreads().keys()
    with pytest.raises(DissectError, match=r"tried to end the program \(exit code 2\)"):
        list(run_tasks(processes, exits, [2, 2]))
    with pytest.raises(BlocksFailed, match="tried to end the program"):
        list(run_blocks(processes, exits, range(5)))
    assert processes.client.nthreads().keys() == pids
