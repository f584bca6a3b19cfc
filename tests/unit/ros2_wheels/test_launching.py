"""`ros2 launch` with real processes: exit status, escalation, scopes, output, no orphans."""

import os
import re
import signal
import time

import pytest

pytest.importorskip("ros2_wheels")

SLEEP = "import time; print('ready'); time.sleep(60)"


def test_the_runners_success_ends_the_launch_with_status_zero(start_launch):
    run = start_launch(
        f"""
        def description():
            runner = python("import time; time.sleep(0.3); print('done', end='')", output="screen")
            return [
                RegisterEventHandler(
                    OnProcessExit(target_action=runner, on_exit=[Shutdown(reason="done")])
                ),
                python({SLEEP!r}, output="screen"),
                runner,
            ]
        """
    )
    assert run.finish() == 0
    assert re.search(r"process\[python[\d.]*-2\] was required: shutting down", run.output)
    assert re.search(r"^\[python[\d.]*-1\] ready$", run.output, re.M)
    # The unfinished last line of a process is printed, too.
    assert re.search(r"^\[python[\d.]*-2\] done$", run.output, re.M)
    assert "sending signal 'SIGINT' to process[" in run.output


def test_an_exception_in_a_handler_ends_the_launch_with_status_one(start_launch):
    run = start_launch(
        f"""
        def description():
            def on_exit(event, context):
                if not context.is_shutdown:
                    raise RuntimeError(f"{{event.process_name}} died: {{event.returncode}}")
            return [
                RegisterEventHandler(OnProcessExit(on_exit=on_exit)),
                python("raise SystemExit(3)", name="camera"),
                python({SLEEP!r}, name="other"),
            ]
        """
    )
    assert run.finish() == 1
    assert "process has died [pid " in run.output
    assert "exit code 3, cmd '" in run.output
    assert "Caught exception in launch (see debug for traceback): camera-1 died: 3" in run.output


def test_a_process_that_dies_unwatched_does_not_change_the_status(start_launch):
    run = start_launch("def description(): return [python('raise SystemExit(3)')]")
    assert run.finish() == 0


def test_sigint_ends_everything_with_status_zero(start_launch):
    run = start_launch(f"def description(): return [python({SLEEP!r}, output='screen')]")
    run.wait_for("] ready")
    os.kill(run.process.pid, signal.SIGINT)
    assert run.finish() == 0
    assert "user interrupted with ctrl-c (SIGINT)" in run.output


def test_escalation_to_sigterm_and_sigkill(start_launch):
    stubborn = (
        "import signal, time\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "signal.signal(signal.SIGTERM, lambda *a: print('got SIGTERM'))\n"
        "print('ready')\n"
        "end = time.monotonic() + 60\n"
        "while time.monotonic() < end: time.sleep(0.1)\n"
    )
    run = start_launch(
        f"""
        def description():
            return [python({stubborn!r}, output="screen", name="stubborn",
                           sigterm_timeout="0.5", sigkill_timeout="1.0")]
        """
    )
    run.wait_for("] ready")
    start = time.monotonic()
    os.kill(run.process.pid, signal.SIGINT)
    assert run.finish() == 0
    duration_s = time.monotonic() - start
    order = [
        "sending signal 'SIGINT' to process[stubborn-1]",
        "failed to terminate '0.5' seconds after receiving 'SIGINT', escalating to 'SIGTERM'",
        "[stubborn-1] got SIGTERM",
        "escalating to 'SIGKILL'",
        "exit code -9",
    ]
    positions = [run.output.find(text) for text in order]
    assert positions == sorted(positions), run.output
    assert positions[0] >= 0
    assert duration_s >= 1.5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_a_killed_launch(start_launch, number):
    ignoring = (
        "import signal, time; [signal.signal(s, signal.SIG_IGN) for s in "
        "(signal.SIGINT, signal.SIGTERM)]; print('ready'); time.sleep(60)"
    )
    run = start_launch(
        f"""
        def description():
            return [python({ignoring!r}, output="screen",
                           sigterm_timeout="0.3", sigkill_timeout="0.3")]
        """
    )
    run.wait_for("] ready")
    assert run.left_over()
    os.kill(run.process.pid, number)
    assert run.finish() == (1 if number == signal.SIGTERM else -signal.SIGKILL)


def test_programs_started_by_a_process_end_with_the_launch(start_launch):
    parent = (
        "import subprocess, sys\n"
        f"subprocess.Popen([sys.executable, '-u', '-c', {SLEEP!r}], start_new_session=True)\n"
    )
    run = start_launch(
        f"""
        def description():
            return [python({parent!r}, output="screen"),
                    TimerAction(period=1.5, actions=[Shutdown()])]
        """
    )
    run.wait_for("process has finished cleanly")
    assert run.finish() == 0


def test_wrong_arguments_are_refused_before_anything_starts(start_launch):
    source = """
        def description():
            return [DeclareLaunchArgument("sim", default_value="true", choices=["true", "false"]),
                    DeclareLaunchArgument("task"), LogInfo(msg="started")]
        """
    run = start_launch(source, "sim:=maybe", "task:=x")
    assert run.finish() == 1
    assert "Valid options are: ['true', 'false']" in run.output
    run = start_launch(source)
    assert run.finish() == 1
    assert "missing required argument 'task'" in run.output
    run = start_launch(source, "task")
    assert run.finish() == 1
    assert "malformed launch argument 'task', expected format '<name>:=<value>'" in run.output
    # Unknown arguments are accepted, as launch files may read them without declaring them.
    run = start_launch(source, "task:=x", "tusk:=y")
    assert run.finish() == 0
    assert "[INFO] [launch.user]: started" in run.output


def test_show_args_lists_included_and_conditional_arguments(start_launch, tmp_path):
    (tmp_path / "inner.launch.py").write_text(
        "from launch import LaunchDescription\n"
        "from launch.actions import DeclareLaunchArgument\n"
        "def generate_launch_description():\n"
        "    return LaunchDescription([DeclareLaunchArgument('inner', default_value='i')])\n"
    )
    source = f"""
        def description():
            home = EnvironmentVariable("HOME")
            return [
                DeclareLaunchArgument("rate_hz", default_value="5.0", description="Rate"),
                DeclareLaunchArgument("task", choices=["a", "b"], description="Task."),
                IncludeLaunchDescription({str(tmp_path / "inner.launch.py")!r}),
                GroupAction([DeclareLaunchArgument("late", default_value=["x", home])],
                            condition=IfCondition("true")),
            ]
        """
    run = start_launch(source, "--show-args")
    assert run.finish() == 0
    assert (
        "Arguments (pass arguments as '<name>:=<value>'):\n\n"
        "    'rate_hz':\n        Rate\n        (default: '5.0')\n\n"
        "    'task':\n        Task. Valid choices are: ['a', 'b']\n\n"
        "    'inner':\n        no description given\n        (default: 'i')\n\n"
        "    'late':*\n        no description given\n        (default: 'x' + EnvVar('HOME'))\n\n"
        "* argument(s) which are only used if specific conditions occur\n"
    ) in run.output


def test_groups_limit_configurations_and_environment(start_launch):
    run = start_launch(
        """
        def show(label):
            return LogInfo(msg=[label, " x=", LaunchConfiguration("x", default="unset"),
                                " V=", EnvironmentVariable("V", default_value="unset")])
        def description():
            return [
                SetLaunchConfiguration("x", "outer"),
                GroupAction([SetLaunchConfiguration("x", "inner"),
                             SetEnvironmentVariable("V", "1"), show("in")]),
                show("after"),
                GroupAction([show("bare")], forwarding=False),
                GroupAction([show("kept")], forwarding=False,
                            launch_configurations={"x": LaunchConfiguration("x")}),
                GroupAction([SetLaunchConfiguration("x", "leaked")], scoped=False),
                show("end"),
            ]
        """
    )
    assert run.finish() == 0
    lines = re.findall(r"\[launch.user\]: (.*)", run.output)
    assert lines == [
        "in x=inner V=1",
        "after x=outer V=unset",
        "bare x=unset V=unset",
        "kept x=outer V=unset",
        "end x=leaked V=unset",
    ]


def test_a_process_is_respawned_as_often_as_allowed(start_launch):
    run = start_launch(
        """
        def description():
            return [python("print('again'); raise SystemExit(1)", output="screen", name="flaky",
                           respawn=True, respawn_delay=0.1, respawn_max_retries=2)]
        """
    )
    assert run.finish() == 0
    assert run.output.count("[flaky-1] again") == 3


def test_output_goes_where_it_is_wanted_and_to_the_log_directory(start_launch):
    code = "import sys; print('to stdout'); print('to stderr', file=sys.stderr)"
    run = start_launch(
        f"""
        def description():
            return [python({code!r}, name="quiet"), python({code!r}, name="shown", output="screen"),
                    python({code!r}, name="both", output="both"),
                    python("import sys; print('tty', sys.stdout.isatty())", name="terminal",
                           output="screen", emulate_tty=True)]
        """
    )
    assert run.finish() == 0
    assert "[quiet-1] to stderr" in run.output
    assert "[quiet-1] to stdout" not in run.output
    assert "[shown-2] to stdout" in run.output
    assert "[both-3] to stdout" in run.output
    assert "[terminal-4] tty True" in run.output
    log = (run.log_directory / "latest" / "launch.log").read_text()
    assert "[quiet-1] to stdout" in log
    assert "[both-3] to stdout" in log
    assert "[shown-2] to stdout" not in log
    assert "[INFO] [quiet-1]: process started with pid" in log


def test_included_files_know_their_own_directory_and_get_arguments(start_launch, tmp_path):
    inner = tmp_path / "sub" / "inner.launch.py"
    inner.parent.mkdir()
    inner.write_text(
        "from launch import LaunchDescription\n"
        "from launch.actions import LogInfo\n"
        "from launch.substitutions import *\n"
        "def generate_launch_description():\n"
        "    return LaunchDescription([LogInfo(msg=['in ', ThisLaunchFileDir(), ' ',"
        " LaunchConfiguration('a')])])\n"
    )
    run = start_launch(
        """
        def description():
            return [IncludeLaunchDescription([ThisLaunchFileDir(), "/sub/inner.launch.py"],
                                             launch_arguments={"a": "1"}.items()),
                    LogInfo(msg=["out ", ThisLaunchFileDir()])]
        """
    )
    assert run.finish() == 0
    assert f"in {inner.parent} 1\n" in run.output
    assert f"out {tmp_path}\n" in run.output


def test_a_broken_launch_file_is_named_with_its_error(start_launch):
    run = start_launch("def description(): return [undefined_name]")
    assert run.finish() == 1
    assert "NameError: name 'undefined_name' is not defined" in run.output


def test_handlers_on_start_completion_and_shutdown_run_in_order(start_launch):
    run = start_launch(
        f"""
        def description():
            worker = python({SLEEP!r}, name="worker")
            timer = TimerAction(period=0.2, actions=[LogInfo(msg="timer"), EmitEvent(
                event=ShutdownProcess(process_matcher=matches_action(worker)))])
            return [
                RegisterEventHandler(OnProcessStart(
                    target_action=worker, on_start=[LogInfo(msg="started"), timer])),
                RegisterEventHandler(OnProcessExit(
                    target_action=worker, on_exit=[LogInfo(msg="exited")])),
                RegisterEventHandler(OnExecutionComplete(
                    target_action=timer, on_completion=[LogInfo(msg="timer complete")])),
                RegisterEventHandler(OnShutdown(on_shutdown=[LogInfo(
                    msg=["shutdown: ", LocalSubstitution("event.reason")])])),
                TimerAction(period=60.0, actions=[LogInfo(msg="never")]),
                worker,
            ]
        """,
    )
    run.wait_for("exited")
    os.kill(run.process.pid, signal.SIGINT)
    assert run.finish() == 0
    lines = re.findall(r"\[launch.user\]: (.*)", run.output)
    assert lines[0] == "started"
    assert set(lines[1:3]) == {"timer", "timer complete"}
    assert lines[3:] == ["exited", "shutdown: ctrl-c (SIGINT)"]
