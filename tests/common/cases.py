"""One line a case: `ok` or `FAIL`, its name, its numbers, its seconds."""

import threading
import time


class Failure(Exception):
    """A promise that was not kept; its text is the line of the case."""


class Report:
    def __init__(self):
        self.passed = self.failed = 0
        self.lock = threading.Lock()

    def case(self, name, check):
        """`check` returns the numbers of a success and raises for anything else."""
        began = time.monotonic()
        try:
            word, numbers = "ok", check()
        except Failure as e:
            word, numbers = "FAIL", str(e)
        except Exception as e:  # a bug of the test itself fails its case and not the rest
            word, numbers = "FAIL", f"{type(e).__name__}: {e}"
        with self.lock:
            if word == "ok":
                self.passed += 1
            else:
                self.failed += 1
            print(f"{word:4} {name:44} {numbers or ''} ({time.monotonic() - began:.1f} s)", flush=True)

    def with_relay(self, name, relay, body):
        """`body(relay)` makes cases while the relay runs; its start, its losses and its end are cases too."""
        try:
            try:
                relay.start()
            except (Failure, OSError) as e:
                why = str(e)
                return self.case(f"{name}: relay starts", lambda: fail(why))
            body(relay)
            if relay.congestion:
                self.case(f"{name}: relay dropped nothing", lambda: dropped_nothing(relay))

            def ends():
                relay.stop()
                return f"status {relay.exit_status}"
            self.case(f"{name}: relay ends on SIGTERM", ends)
        finally:
            relay.clean()


def fail(why):
    raise Failure(why)


def dropped_nothing(relay):
    """The relay's own view of the load: no packet was lost for want of room."""
    counters, kernel = relay.counters(), relay.kernel_drops()
    lost = {key: counters[key] for key in relay.congestion if counters.get(key)}
    missing = [key for key in relay.congestion if key not in counters]
    if kernel:
        lost["listener_queue"] = kernel
    if lost or missing:
        raise Failure(f"lost {lost}, without a counter {missing}")
    refused = {key: value for key, value in counters.items() if key.startswith("dropped_") and value}
    return f"relayed {counters['packets_to_peer']} + {counters['packets_to_client']} packets" + (f", refused {refused}" if refused else "")
