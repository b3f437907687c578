"""What /metrics shows of the queue and the engines. Each service has its own registry, so tests do not share counts."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from sfumato.core.jobs import Job, JobStatus
from sfumato.core.messages import Finished, TurnStats
from sfumato.storage.tables import utc_now

_JOB_SECONDS = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 240, 600, 1800)
_TURN_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_TURN_ROWS = (1, 2, 4, 8, 16, 32, 64)
_OVERHEAD_SECONDS = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5)


class Metrics:
    """The numbers of one service; `docs/metrics.md` has one line per metric."""

    def __init__(self, queue_depth: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        depth = Gauge("sfumato_queue_depth", "Jobs that wait for an engine", registry=self.registry)
        depth.set_function(queue_depth)
        self.jobs = Counter("sfumato_jobs", "Jobs ended", ["status", "dialect"], registry=self.registry)
        self.images = Counter("sfumato_images", "Pictures delivered", registry=self.registry)
        self.queue_wait_seconds = self._histogram("queue_wait_seconds", "From accepted to started", _JOB_SECONDS)
        self.job_seconds = self._histogram("job_seconds", "From started to stored", _JOB_SECONDS)
        self.turn_seconds = self._histogram("turn_seconds", "One turn of the denoise loop", _TURN_SECONDS)
        self.turn_rows = self._histogram("turn_rows", "Network rows per turn", _TURN_ROWS)
        self.turn_overhead_seconds = self._histogram(
            "turn_overhead_seconds", "Part of a turn spent outside the network", _OVERHEAD_SECONDS
        )
        self.phase_seconds = Counter(
            "sfumato_phase_seconds",
            "Engine time of finished jobs by phase; pictures denoised together count each",
            ["phase"],
            registry=self.registry,
        )
        self.engine_up = Gauge("sfumato_engine_up", "Engines that take jobs", registry=self.registry)
        self.engine_restarts = Counter("sfumato_engine_restarts", "Engines that died", registry=self.registry)

    def job_started(self, job: Job) -> None:
        """Count how long a job has waited."""
        if job.started_at is not None:
            self.queue_wait_seconds.observe((job.started_at - job.created_at).total_seconds())

    def job_ended(self, job: Job, status: JobStatus, *, images: int = 0) -> None:
        """Count a job and the pictures it delivered."""
        self.jobs.labels(status.value, job.dialect.value).inc()
        self.images.inc(images)
        if status is JobStatus.SUCCEEDED and job.started_at is not None:
            self.job_seconds.observe((utc_now() - job.started_at).total_seconds())

    def turn(self, stats: TurnStats) -> None:
        """Count one turn of an engine's denoise loop."""
        self.turn_seconds.observe(stats.seconds)
        self.turn_rows.observe(stats.rows)
        self.turn_overhead_seconds.observe(stats.overhead_seconds)

    def finished(self, event: Finished) -> None:
        """Count the phases of a job that an engine has finished."""
        self.phase_seconds.labels("encode").inc(event.encode_seconds)
        self.phase_seconds.labels("denoise").inc(event.denoise_seconds)
        self.phase_seconds.labels("decode").inc(event.decode_seconds)

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"sfumato_{name}", text, buckets=buckets, registry=self.registry)
