"""Whatever happens, and however late: one probe at a time, and the circuit recovers."""

from hypothesis import given
from hypothesis import strategies as st

from embedding_pipeline.circuit import BreakerConfig, Circuit, Outcome, State, admit, record

CONFIG = BreakerConfig(failures_to_open=3, open_seconds=2, max_open_seconds=10)

actions = st.lists(
    st.tuples(st.sampled_from(list(Outcome)), st.floats(0, 5), st.booleans()), max_size=60
)


@given(actions)
def test_at_most_one_probe_and_bounded_openings(steps: list[tuple[Outcome, float, bool]]) -> None:
    """Random histories, answers arriving at once or late: the circuit always recovers."""
    circuit, now = Circuit(), 0.0
    flying: list[tuple[int, Outcome]] = []
    probes = 0
    for outcome, seconds, late in steps:
        now += seconds
        circuit, admission = admit(circuit, now)
        if admission.allowed:
            probes += circuit.state is State.HALF_OPEN
            flying.append((circuit.epoch, outcome))
        else:
            assert 0 < admission.retry_after <= CONFIG.max_open_seconds
        assert probes <= 1
        while flying and not late:
            epoch, ended = flying.pop()
            probes -= circuit.state is State.HALF_OPEN and epoch == circuit.epoch
            circuit = record(circuit, epoch, ended, now, CONFIG)
        assert circuit.until <= now + CONFIG.max_open_seconds
    for epoch, ended in flying:
        circuit = record(circuit, epoch, ended, now, CONFIG)
    circuit, admission = admit(circuit, now + CONFIG.max_open_seconds)
    assert admission.allowed


@given(st.integers(0, 2), st.sampled_from([Outcome.ANSWERED, Outcome.ABANDONED]))
def test_fewer_failures_than_it_takes_change_nothing(failures: int, last: Outcome) -> None:
    circuit = Circuit()
    for _ in range(failures):
        circuit = record(circuit, circuit.epoch, Outcome.FAILED, 0.0, CONFIG)
    circuit = record(circuit, circuit.epoch, last, 0.0, CONFIG)
    assert circuit.state is State.CLOSED
    assert circuit.failures == (0 if last is Outcome.ANSWERED else failures)
