"""Starts and ends the programs of a comparison: pinned, in a network namespace where one is wanted, and never left behind."""

import atexit
import os
import resource
import signal
import subprocess

_children = []


def start(command, core, nice=0, namespace=None, **more):
    def prepare():
        os.sched_setaffinity(0, {core})
        if nice:
            os.setpriority(os.PRIO_PROCESS, 0, nice)
            try:  # With autogroups a nice value counts only within its session, and the session has one of its own.
                with open("/proc/self/autogroup", "w") as group:
                    group.write(str(nice))
            except OSError:
                pass
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    if namespace:
        command = ["ip", "netns", "exec", namespace, *command]  # becomes the program: the pid stays
    process = subprocess.Popen(command, preexec_fn=prepare, start_new_session=True, **more)
    _children.append(process)
    return process


def stop(process, patience=5.0):
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process in _children:
        _children.remove(process)


@atexit.register
def stop_all():
    for process in list(_children):
        stop(process, 2.0)


def run(*command, text=None):
    """A short command that must succeed; `text` is its input."""
    done = subprocess.run(command, input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: {done.stdout.strip()}")
    return done.stdout
