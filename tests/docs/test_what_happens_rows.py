"""Every row of docs/what-happens.md is shown by tests; this is the list of them."""

from __future__ import annotations

import re

import pytest

from support.pages import DOCS

PAGE = (DOCS / "what-happens.md").read_text()
HERE = "docs/test_what_happens.py::"
SERVERS = "docs/test_what_happens_on_servers.py::"
JUDGED = "cli/test_judgement.py::"
UNTRIED = "not tried"
"""The row says so."""

SHOWN = {
    "... to the holder": {
        "**`kill -9`**": f"{HERE}test_kill_9_of_a_program_frees_its_lock_at_once "
        f"{HERE}test_a_lock_delay_follows_kill_9 "
        f"{HERE}test_kill_9_of_run_kills_its_command_and_frees_the_lock "
        f"{HERE}test_kill_9_of_run_kills_what_its_command_has_started "
        f"{HERE}test_kill_9_of_run_frees_nothing_under_a_daemon",
        "**SIGTERM**": f"{HERE}test_sigterm_without_a_handler_runs_no_cleanup_but_frees_the_lock "
        f"{HERE}test_sigterm_with_on_sigterm_releases_and_keeps_no_lock_delay "
        f"{HERE}test_sigterm_to_run_is_passed_on_and_the_lock_released",
        "**Ctrl-C** in the body of a `with`": f"{HERE}test_ctrl_c_in_a_with_block_releases_the_lock",
        "**Ctrl-C**, or any signal handler that raises, during the release itself or on the way into or out "
        "of a `with`": "crash/test_interrupts.py::test_l4_interrupts_at_any_bytecode_leave_nothing_behind",
        "**a signal handler that takes a lock** of the client that it interrupted": (
            "unit/test_handlers.py::test_looking_at_a_name_bears_a_handler_that_locks_it"
        ),
        "**Ctrl-C** while waiting": f"{HERE}test_ctrl_c_while_waiting_leaves_no_claim",
        "**normal end** of the program with a lease still held": (
            f"{HERE}test_the_end_of_a_program_releases_what_it_holds"
        ),
        "**SIGSTOP**, Ctrl-Z": (
            f"{HERE}test_a_stopped_program_is_told_of_its_loss_when_it_goes_on "
            f"{HERE}test_a_stopped_run_keeps_its_lock_past_its_ttl"
        ),
        "**the machine sleeps**": UNTRIED,
        "**`fork`**": f"{HERE}test_in_a_forked_child_the_lease_is_inert_and_the_client_works",
        "**`max_hold` passes**": (
            f"{HERE}test_max_hold_ends_a_forgotten_hold {HERE}test_max_hold_ends_the_command_of_run"
        ),
        "**evict**": f"{HERE}test_evict_marks_a_holder_and_lets_nobody_in_before_it_can_know "
        f"{HERE}test_an_evicted_run_ends_its_command_before_the_next_is_let_in "
        f"{HERE}test_the_command_of_a_stopped_run_that_is_evicted_is_dead_before_the_next_is_let_in",
        "**evict `--now`**": f"{SERVERS}test_evict_now_lets_the_next_in_at_once",
        "**the lease is garbage-collected** unreleased": (
            f"{HERE}test_a_collected_lease_warns_and_frees_its_lock_when_its_validity_ends"
        ),
        "**`client.close()`**": f"{HERE}test_a_client_that_is_closed_releases_what_it_holds",
        "**the client is garbage-collected** without `close()`": (
            "unit/test_close_at_once.py::"
            "test_a_client_that_is_dropped_after_two_ctrl_c_in_close_lets_go_of_its_store"
        ),
        "**the log stands still** (a full pipe, a terminal after Ctrl-S), or a filter or handler of yours "
        "raises": "unit/test_log_that_fails.py::test_each_loss_is_told",
        "**no thread can be started** (`ulimit -u`, `pids.max`)": (
            "unit/test_no_threads.py::"
            "test_an_acquire_without_a_heartbeat_is_refused_before_the_store_is_asked"
        ),
    },
    "On Redis, etcd and ZooKeeper": {
        "**`kill -9`** of a program": (
            f"{SERVERS}test_kill_9_of_a_program_frees_its_lock_when_its_ttl_is_over "
            f"{SERVERS}test_a_lock_delay_follows_kill_9"
        ),
        "**`kill -9`** of `lockkit run`": (
            f"{SERVERS}test_kill_9_of_run_kills_its_command_and_frees_the_lock_when_its_ttl_is_over "
            f"{SERVERS}test_kill_9_of_run_kills_the_programs_of_a_script_too"
        ),
        "**SIGSTOP** of a program, or **the machine sleeps**": (
            f"{SERVERS}test_a_stopped_program_is_told_of_its_loss_when_it_goes_on"
        ),
        "**SIGSTOP** of `lockkit run`, Ctrl-Z": (
            f"{SERVERS}test_the_command_of_a_stopped_run_is_dead_before_the_next_is_let_in"
        ),
        "**evict**": f"{SERVERS}test_an_evicted_holder_is_told_and_nobody_let_in_before_it_can_know "
        f"{SERVERS}test_an_evicted_run_ends_its_command_before_the_next_is_let_in "
        f"{SERVERS}test_the_command_of_a_stopped_run_that_is_evicted_is_dead_before_the_next_is_let_in",
        "**evict `--now`**": f"{SERVERS}test_evict_now_lets_the_next_in_at_once",
    },
    "... to a waiter": {
        "**`kill -9`**": "crash/test_deaths.py::test_l5_kill_9_of_a_waiter_changes_nothing_for_the_others",
        "**SIGSTOP**": f"{HERE}test_a_stopped_waiter_is_passed_over_and_queues_again",
        "**the client is closed**, or the interpreter ends": (
            "crash/test_ends.py::test_exit_while_another_thread_waits_takes_its_claim_back"
        ),
        "**its timeout passes**": f"{SERVERS}test_a_timeout_leaves_nothing_behind",
    },
    "A waiter on Redis, etcd and ZooKeeper": {
        "**`kill -9`**": f"{SERVERS}test_a_waiter_that_is_killed_or_stopped_is_passed_over",
        "**SIGSTOP**": f"{SERVERS}test_a_waiter_that_is_killed_or_stopped_is_passed_over",
        "**the client is closed**, **its timeout passes**": f"{SERVERS}test_a_timeout_leaves_nothing_behind",
    },
    "... to the store": {
        "**restart of the machine**": "backends/test_sqlite_store.py::test_claims_of_another_boot_are_dead",
        "**power loss**": UNTRIED,
        "**full disk**": "backends/test_sqlite_store.py::test_a_full_disk_is_refused_and_nothing_is_held",
        "**read-only or missing folder, no permission**": (
            "backends/test_sqlite_store.py::test_a_folder_that_cannot_be_written_to_is_permission_denied"
        ),
        "**no home folder, or one that cannot be written to**": "unit/test_places.py::test_without_any_home",
        "**another user** of the host takes the same lock": (
            "backends/test_sqlite_users.py::test_two_users_exclude_each_other_and_see_each_other "
            "backends/test_sqlite_users.py::test_kill_9_of_one_user_frees_its_lock_for_the_other_at_once "
            "backends/test_sqlite_users.py::test_a_user_outside_the_group_is_refused_with_the_group"
        ),
        "**network file system**": (
            "backends/test_sqlite_store.py::test_a_network_file_system_is_refused_with_the_alternative"
        ),
        "**a deploy** of your service": (
            "backends/test_sqlite_store.py::test_a_newer_file_that_this_version_may_read_is_used "
            "backends/test_sqlite_store.py::test_a_file_for_newer_readers_is_refused_naming_version_and_host"
        ),
        "**somebody deletes or replaces a file of the store** (the database, its `-wal`, `-shm` or `-lock`, "
        "the folder; a restored backup)": f"{HERE}test_a_deleted_file_is_a_loss_told_with_the_next_renewal",
        "**somebody deletes the folder of FIFOs**": (
            "backends/test_sqlite_files.py::test_a_removed_folder_of_fifos_is_restored"
        ),
        "**the database gets a second name** (a hard link, the file alone mounted into a container)": (
            "backends/test_sqlite_files.py::test_a_second_name_of_a_database_in_use_is_refused"
        ),
        "**systemd-tmpfiles cleans /var/tmp**": (
            "backends/test_sqlite_files.py::test_a_cleaner_of_old_files_passes_over_a_store_that_is_open"
        ),
        "**the wall clock steps**": (
            "backends/test_sqlite_store.py::"
            "test_fences_rise_while_the_wall_clock_steps_back_and_leave_nothing_for_each_name"
        ),
        "**another process stalls for seconds**": (
            "backends/test_sqlite_store.py::"
            "test_others_acquire_while_a_holder_process_stalls_with_the_gil_in_hand"
        ),
    },
    "To a server": {
        "**it does not answer**, or the network is cut, for less than two thirds of a ttl": (
            f"{SERVERS}test_a_short_silence_of_the_server_costs_no_lock"
        ),
        "the same **for longer**": (
            f"{SERVERS}test_a_silence_longer_than_the_ttl_is_a_loss_that_is_told_in_time"
        ),
        "**it restarts with its data**": f"{SERVERS}test_a_server_that_restarts_with_its_data_costs_no_lock",
        "**it restarts empty**": f"{SERVERS}test_a_server_that_lost_its_data_lets_the_next_in",
        "**failover**": "backends/test_redis_failover.py::"
        "test_after_a_failover_the_next_fence_is_higher_and_the_demoted_primary_grants_nothing "
        "backends/test_etcd_failover.py::"
        "test_a_leader_that_stood_still_takes_nothing_from_anybody_when_it_goes_on "
        "backends/test_zookeeper_sessions.py::test_the_leader_is_killed_while_locks_are_held_and_awaited",
        "**no majority**, or no primary": (
            f"{SERVERS}test_a_silence_longer_than_the_ttl_is_a_loss_that_is_told_in_time"
        ),
        "**a full memory or disk**": (
            "docs/test_redis_pages.py::"
            "test_without_memory_new_claims_are_refused_and_holders_renew_and_release"
        ),
        "**somebody deletes the keys** (FLUSHALL, `etcdctl del`, `deleteall`)": (
            f"{SERVERS}test_keys_that_somebody_deletes_free_the_lock_and_are_a_loss_for_its_holder"
        ),
        "**the server's clock steps** forward by more than a ttl": (
            "docs/test_redis_pages.py::"
            "test_a_clock_set_forward_may_let_two_hold_and_the_second_has_the_higher_fence"
        ),
        "**the server's clock steps** back": (
            "docs/test_redis_pages.py::"
            "test_a_clock_set_back_keeps_no_claim_longer_than_asked_and_fences_rise_by_one"
        ),
    },
    "... to an operator": {
        "**the holder is evicted at once** (`evict --now`, `evict(now=True)`)": (
            f"{SERVERS}test_evict_now_lets_the_next_in_at_once"
        ),
        "**the holder is stopped**": (
            f"{JUDGED}test_a_stopped_holder_is_not_alive_and_goes_on_with_the_line_that_is_told"
        ),
        "**the holder was killed**": (
            f"{JUDGED}test_a_killed_holder_is_dead_on_a_server_and_the_lock_is_free_on_sqlite"
        ),
        "**a `lockkit run` was killed**, and a daemon that its command started lives on": (
            f"{JUDGED}test_the_lock_of_a_killed_wrapper_is_kept_by_what_it_left_and_freed_by_the_line_that_is_told"
        ),
        "**the holder is in a container**, or on another host": (
            f"{JUDGED}test_a_holder_in_another_pid_namespace_is_never_guessed"
        ),
    },
}


def rows():
    """The first cell of each row, by the heading above its table."""
    found, heading = {}, ""
    for line in PAGE.splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif line.startswith("| ") and not line.startswith("| what happens"):
            found.setdefault(heading, []).append(line[2:].partition(" | ")[0])
    return found


def test_every_row_is_in_the_list_and_every_entry_is_a_row():
    assert {heading: list(shown) for heading, shown in SHOWN.items()} == rows()


@pytest.mark.parametrize(
    "path", sorted({path for shown in SHOWN.values() for path in shown.values()} - {UNTRIED})
)
def test_every_test_of_the_list_exists(path, root):
    for each in path.split():
        file, _, name = each.partition("::")
        assert re.search(rf"^def {name}\(", (root / "tests" / file).read_text(), re.MULTILINE), each


def test_what_is_not_tried_says_so():
    untried = [row for shown in SHOWN.values() for row, path in shown.items() if path == UNTRIED]

    assert untried == ["**the machine sleeps**", "**power loss**"]
    assert "The tests do not put a machine to sleep" in PAGE
    assert "The tests do not cut the power" in PAGE
