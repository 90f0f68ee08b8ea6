"""Training under launchers, as real processes: torchrun, two hosts, restarts, SLURM."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from launchers import HOSTS, run, script, torchrun, two_hosts, why_not_two_hosts
from lightning.pytorch.plugins.environments import LightningEnvironment
from tools import ROOT
from trainers import free_port

from smx_export.runtime import OnnxClassifier
from smx_lightning import InputError, SoftmaxRegression

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds its processes in /proc")

EXAMPLE = ROOT / "examples" / "several_processes.py"
STEPS = 15  # three epochs of five batches


def trained(finished, path):
    """What rank zero wrote, once all processes ended well."""
    for code, output in finished:
        assert code == 0, output
    return dict(np.load(path))


def assert_same_training(answer, alone, world):
    """The same model as one process learns, and the same metrics."""
    assert (answer["began"], answer["steps"], answer["world"]) == (0, STEPS, world)
    for name in ("weight", "bias"):
        scale = np.abs(alone[name]).max()
        np.testing.assert_allclose(answer[name] / scale, alone[name] / scale, rtol=0, atol=1e-6)
    assert answer["test/accuracy_micro"] == alone["test/accuracy_micro"]
    np.testing.assert_allclose(answer["test/nll"], alone["test/nll"], rtol=1e-6)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What the script learns as one plain process."""
    folder = tmp_path_factory.mktemp("alone")
    return trained(run(script("alone.npz"), folder=folder), folder / "alone.npz")


@pytest.mark.whole
def test_torchrun_learns_what_one_process_learns(alone, tmp_path):
    command = torchrun("--standalone", "--nproc-per-node", 2, arguments=["both.npz"])
    finished = run(command, folder=tmp_path)
    assert_same_training(trained(finished, tmp_path / "both.npz"), alone, world=2)


@pytest.mark.whole
def test_the_readme_s_script_makes_the_same_file_under_torchrun(digits, tmp_path):
    test = digits.splits.test
    probs = {}
    for name, command in (
        ("alone", [sys.executable, str(EXAMPLE)]),
        ("both", torchrun("--standalone", "--nproc-per-node", 2, script=EXAMPLE)),
    ):
        folder = tmp_path / name
        folder.mkdir()
        ((code, output),) = run(command, folder=folder)
        assert code == 0, output
        assert output.count("digits.onnx") == 1  # by rank zero
        probs[name] = OnnxClassifier(folder / "digits.onnx").predict_proba(test.x.numpy())
    np.testing.assert_allclose(probs["both"], probs["alone"], rtol=0, atol=1e-5)
    right = {name: (p.argmax(1) == test.y.numpy()).sum() for name, p in probs.items()}
    assert right["both"] == right["alone"] > 0.95 * len(test)


@pytest.mark.whole
def test_the_command_line_does_its_whole_job_in_two_processes(tmp_path):
    options = [
        "--trainer.devices",
        "2",
        "--trainer.accelerator",
        "cpu",
    ]
    command = [sys.executable, "-m", "smx_lightning", "fit", *options]  # which starts the second
    ((code, output),) = run(command, folder=tmp_path)
    assert code == 0, output
    logs = tmp_path / "lightning_logs" / "version_0"
    assert {"model.onnx", "confusion_matrix.csv", "metrics.csv"} <= {p.name for p in logs.iterdir()}
    assert [path.name for path in logs.parent.iterdir()] == ["version_0"]
    for said in ("parity holds", "test accuracy micro", "ExactSolver(), ", "converged: "):
        assert output.count(said) == 1, output


@pytest.mark.whole
def test_two_hosts_learn_what_one_process_learns(alone, tmp_path):
    if reason := why_not_two_hosts():
        pytest.skip(reason)
    with two_hosts() as names:
        commands = []
        for rank, (name, address) in enumerate(zip(names, HOSTS, strict=True)):
            options = {
                "nnodes": 2,
                "nproc-per-node": 1,
                "rdzv-backend": "c10d",
                "rdzv-id": "digits",
                "rdzv-endpoint": f"{HOSTS[0]}:29400",
                "rdzv-conf": f"is_host={1 - rank}",  # names of hosts are the machine's own here
                "local-addr": address,
            }
            options = [f"--{option}={value}" for option, value in options.items()]
            command = torchrun(*options, arguments=[f"host{rank}.npz"])
            commands.append(["ip", "netns", "exec", name, *command])
        finished = run(*commands, folder=tmp_path, environ=[{"GLOO_SOCKET_IFNAME": "cable"}] * 2)
    (written,) = tmp_path.glob("host*.npz")  # by rank zero, whichever host it ran on
    assert_same_training(trained(finished, written), alone, world=2)


def recovering(folder, *disturbance):
    """What a group learns that torchrun restarts where a process dies."""
    arguments = ["answer.npz", "--folder", folder, "--recover", 4, *disturbance]
    options = ["--standalone", "--nproc-per-node", 2, "--max-restarts", 3]
    finished = run(torchrun(*options, arguments=arguments), folder=folder)
    return trained(finished, folder / "answer.npz")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return recovering(tmp_path_factory.mktemp("undisturbed"))


@pytest.mark.whole
@pytest.mark.parametrize("killed", [0, 1])
def test_a_group_restarted_in_mid_epoch_ends_at_the_same_bits(killed, undisturbed, tmp_path):
    sent = tmp_path / "sent"
    restarted = recovering(tmp_path, "--interrupt", "SIGKILL", killed, "after", 8, sent)
    assert sent.exists()
    assert (undisturbed["began"], restarted["began"]) == (0, 7)  # an epoch has five steps
    assert_identical(restarted, undisturbed, names=undisturbed.keys() - {"began"})


@pytest.mark.whole
def test_a_group_restarted_before_its_first_save_finds_no_older_training(undisturbed, tmp_path):
    recovering(tmp_path)  # a training that ended well
    sent = tmp_path / "sent"
    restarted = recovering(tmp_path, "--interrupt", "SIGKILL", 1, "within", 2, sent)
    assert sent.exists()
    assert restarted["began"] == 0
    assert_identical(restarted, undisturbed, names=undisturbed.keys())


def assert_identical(answer, other, names):
    for name in names:
        np.testing.assert_array_equal(answer[name], other[name], err_msg=name)


# SLURM -------------------------------------------------------------------------------------------


def slurm(ntasks, rank, port):
    """The environment that srun gives to one of the tasks of a job on one node."""
    environ = {
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NAME": "train",
        "SLURM_NODELIST": "127.0.0.1",
        "SLURM_NNODES": 1,
        "SLURM_NODEID": 0,
        "SLURM_NTASKS": ntasks,
        "SLURM_NTASKS_PER_NODE": ntasks,
        "SLURM_PROCID": rank,
        "SLURM_LOCALID": rank,
        "MASTER_PORT": port,
    }
    return {name: str(value) for name, value in environ.items()}


@pytest.mark.whole
def test_tasks_of_a_slurm_job_find_each_other(alone, tmp_path):
    port = free_port()
    finished = run(
        *[script("answer.npz", "--devices", 2)] * 2,
        folder=tmp_path,
        environ=[slurm(2, rank, port) for rank in range(2)],
    )
    assert_same_training(trained(finished, tmp_path / "answer.npz"), alone, world=2)


@pytest.fixture
def scontrol(tmp_path):
    """A folder with an ``scontrol`` that ends the job that asks to be requeued, as SLURM does."""
    folder = tmp_path / "bin"
    folder.mkdir()
    command = folder / "scontrol"
    command.write_text('#!/bin/sh\necho "$@" >> "$0.asked"\nkill -KILL $PPID\n')
    command.chmod(0o755)
    return command


def preempt(scontrol, folder, *arguments):
    """Run a job that asks to be requeued, and is killed by that; run it again; what it learned."""
    environ = slurm(1, 0, free_port()) | {"PATH": f"{scontrol.parent}:{os.environ['PATH']}"}
    command = script("answer.npz", "--folder", folder, *arguments)
    ((code, output),) = run(command, folder=folder, environ=[environ])
    assert code == -signal.SIGKILL, output
    assert scontrol.with_suffix(".asked").read_text() == "requeue 4711\n"
    assert (folder / "hpc_ckpt_1.ckpt").exists()
    return trained(run(command, folder=folder, environ=[environ]), folder / "answer.npz")


@pytest.mark.whole
def test_a_requeued_slurm_job_goes_on_where_it_was(alone, scontrol, tmp_path):
    arguments = ["--interrupt", "SIGUSR1", 0, "after", 7, tmp_path / "preempted"]
    answer = preempt(scontrol, tmp_path, *arguments)
    assert (answer["began"], answer["steps"]) == (7, STEPS)
    assert_identical(answer, alone, names=("weight", "bias"))


@pytest.mark.whole
def test_a_job_preempted_within_a_batch_loses_no_row_with_recovery(alone, scontrol, tmp_path):
    """Lightning alone saves wherever the signal finds it, and leaves out the batch under way."""
    sent = tmp_path / "preempted"
    arguments = ["--recover", 4, "--interrupt", "SIGUSR1", 0, "within", 7, sent]
    answer = preempt(scontrol, tmp_path, *arguments)
    assert (answer["began"], answer["steps"]) == (8, STEPS)
    assert_identical(answer, alone, names=alone.keys() - {"began"})


SBATCH = ROOT / "examples" / "slurm.sh"
# Starts the tasks of a job as SLURM does, all of its nodes on this machine, and notes its options.
SRUN = """#!{python}
import os, subprocess, sys
options = [word for word in sys.argv[1:] if word.startswith("--")]
print("srun", *options, flush=True)
told, command = os.environ, sys.argv[1 + len(options):]
each = int(told["SLURM_NTASKS_PER_NODE"])
world = each * int(told["SLURM_NNODES"])
ranks = [{{"PROCID": r, "NODEID": r // each, "LOCALID": r % each}} for r in range(world)]
tasks = [
    subprocess.Popen(command, env=told | {{f"SLURM_{{name}}": str(k) for name, k in own.items()}})
    for own in ranks
]
sys.exit(max(task.wait() for task in tasks))
"""


def directives():
    """What sbatch reads in its script: options before the first command."""
    text = SBATCH.read_text("utf-8").partition("\nset ")[0]
    return dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?$", text, re.M))


def test_the_script_of_sbatch_is_one():
    """SLURM itself is not here; bash reads it, and what Lightning needs is asked for."""
    lines = SBATCH.read_text("utf-8").splitlines()
    assert lines[0].startswith("#!")
    told = directives()
    assert len(told) == sum(line.startswith("#SBATCH") for line in lines)
    assert {"nodes", "ntasks-per-node", "cpus-per-task", "time", "requeue", "output"} <= {*told}
    assert told["signal"].startswith("USR1@")  # the one that Lightning requeues at, to all tasks
    assert "ntasks" not in told  # Lightning refuses it
    subprocess.run(["bash", "-n", SBATCH], check=True)


@pytest.mark.whole
def test_the_script_of_sbatch_makes_the_file_that_one_process_makes(digits, tmp_path):
    """From a copy, as SLURM runs it, in the folder that it was submitted from."""
    for name in ("alone", "job", "bin", "spool"):
        (tmp_path / name).mkdir()
    ((code, output),) = run([sys.executable, str(EXAMPLE)], folder=tmp_path / "alone")
    assert code == 0, output
    srun = tmp_path / "bin" / "srun"
    srun.write_text(SRUN.format(python=sys.executable))
    srun.chmod(0o755)
    job = tmp_path / "job"
    (job / "examples").symlink_to(EXAMPLE.parent)
    (job / ".venv" / "bin").mkdir(parents=True)
    activate = f"PATH={Path(sys.executable).parent}:$PATH"
    (job / ".venv" / "bin" / "activate").write_text(activate)
    told = directives()
    environ = slurm(int(told["nodes"]) * int(told["ntasks-per-node"]), 0, free_port()) | {
        "SLURM_NNODES": told["nodes"],
        "SLURM_NTASKS_PER_NODE": told["ntasks-per-node"],
        "SLURM_CPUS_PER_TASK": "1",
        "PATH": f"{srun.parent}:{os.environ['PATH']}",
    }
    script = shutil.copy(SBATCH, tmp_path / "spool" / "slurm_script")
    ((code, output),) = run(["bash", script], folder=job, environ=[environ])
    assert code == 0, output
    assert "srun --cpus-per-task=1 --kill-on-bad-exit=1\n" in output
    assert "MEMBER: 2/2" in output  # as Lightning says it, of the second process
    assert output.count("digits.onnx") == 1
    x, probs = digits.splits.test.x.numpy(), {}
    for name in ("alone", "job"):
        probs[name] = OnnxClassifier(tmp_path / name / "digits.onnx").predict_proba(x)
    np.testing.assert_allclose(probs["job"], probs["alone"], rtol=0, atol=1e-5)


# A Trainer that disagrees with its launcher would train copies that know nothing of each other ----

TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "GROUP_RANK": "0", "WORLD_SIZE": "2", "RANK": "1"}


@pytest.mark.parametrize("environ", [TORCHRUN, slurm(2, 1, 29500)], ids=["torchrun", "SLURM"])
def test_devices_that_disagree_with_the_launcher_are_refused(
    environ, monkeypatch, digits, quiet_trainer
):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    model = SoftmaxRegression(64, 10)
    with pytest.raises(InputError, match=r"2 processes that .* world size 1; set devices"):
        quiet_trainer(devices=1).fit(model, digits)
    copies = quiet_trainer(devices=1, plugins=LightningEnvironment())  # wanted
    copies.fit(model, digits)
    assert copies.global_step > 0


@pytest.mark.whole
def test_torchrun_itself_hears_of_the_refusal(tmp_path):
    options = ["--standalone", "--nproc-per-node", 2]
    command = torchrun(*options, arguments=["answer.npz", "--devices", 1])
    ((code, output),) = run(command, folder=tmp_path)
    assert code > 0
    assert "world size" in output
    assert not (tmp_path / "answer.npz").exists()
