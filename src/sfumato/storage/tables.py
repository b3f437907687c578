"""The tables. Rows stay inside `storage` and `accounts`; everyone else sees the dataclasses made from them.

A change here needs a migration; a test compares the two.
"""

from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Index,
    MetaData,
    String,
    Text,
    TypeDecorator,
)
from sqlalchemy import UniqueConstraint as Unique
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sfumato.core.ids import new_id


def utc_now() -> datetime:
    """Return the time, aware and in UTC."""
    return datetime.now(UTC)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time in UTC with microseconds.

    SQLite keeps it as text of fixed width, so that its order is the order of time; it comes back aware all the same.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError("a time without a zone cannot be stored")
        return value.astimezone(UTC) if value is not None else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    """Base of all rows. Constraints have names by rule, so that a migration can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: UtcDateTime(), str: Text(), list[str]: JSON()}  # noqa: RUF012 (SQLAlchemy's own)


class UserRow(Base):
    """An account. `role` is 'admin' or 'user'; `username` is in lower case."""

    __tablename__ = "users"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    username: Mapped[str] = mapped_column(String(64), unique=True)
    role: Mapped[str] = mapped_column(String(16))
    is_active: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class ApiKeyRow(Base):
    """An API key. `hashed_key` is the SHA-256 of the whole key in hex; the key itself is kept nowhere."""

    __tablename__ = "api_keys"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"), index=True)
    name: Mapped[str] = mapped_column(String(64))
    hashed_key: Mapped[str] = mapped_column(String(64), unique=True)
    short_string: Mapped[str] = mapped_column(String(16))
    is_active: Mapped[bool] = mapped_column(default=True)
    uses: Mapped[int] = mapped_column(default=0)
    credits_spent: Mapped[int] = mapped_column(default=0)
    last_used_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class CreditGrantRow(Base):
    """Credits of one origin with one expiry; `remaining` is what is left of them."""

    __tablename__ = "credit_grants"
    __table_args__ = (CheckConstraint("remaining >= 0", name="remaining_not_negative"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"), index=True)
    type_id: Mapped[UUID]
    type_name: Mapped[str] = mapped_column(String(64))
    type_amount: Mapped[int]
    description: Mapped[str] = mapped_column(default="")
    remaining: Mapped[int]
    starts_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class JobRow(Base):
    """A job. `request` is the `GenerationRequest` as JSON.

    `output_ids` are chosen when the job is accepted, one per picture, so that a repeated run overwrites the same
    objects. `engine_id` names the run of an engine that a RUNNING job was given to; only that run may settle it.
    """

    __tablename__ = "jobs"
    __table_args__ = (Index(None, "status", "created_at"), Index(None, "user_id", "created_at", "id"))

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    api_key_id: Mapped[UUID | None] = mapped_column(ForeignKey("api_keys.id"))
    dialect: Mapped[str] = mapped_column(String(16))
    status: Mapped[str] = mapped_column(String(16))
    request: Mapped[str]
    model: Mapped[str]
    image_count: Mapped[int]
    cost_credits: Mapped[int]
    attempts: Mapped[int] = mapped_column(default=0)
    engine_id: Mapped[str | None] = mapped_column(String(64))
    output_ids: Mapped[list[str]]
    error_code: Mapped[str | None] = mapped_column(String(64))
    error_message: Mapped[str | None]
    notes: Mapped[list[str]] = mapped_column(default=list)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class LedgerEntryRow(Base):
    """One movement of credits, never changed: `amount` is signed as it changes the grant.

    A job can charge a grant once and return to it once; the constraint is what makes a second refund impossible.
    """

    __tablename__ = "ledger_entries"
    __table_args__ = (Unique("job_id", "grant_id", "kind"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"), index=True)
    grant_id: Mapped[UUID] = mapped_column(ForeignKey("credit_grants.id"))
    job_id: Mapped[UUID | None] = mapped_column(ForeignKey("jobs.id"))
    kind: Mapped[str] = mapped_column(String(16))
    amount: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class OutputRow(Base):
    """One stored picture of a job that succeeded. `deleted_at` hides it from everyone."""

    __tablename__ = "outputs"
    __table_args__ = (Index(None, "user_id", "created_at", "id"), Unique("job_id", "index"))

    id: Mapped[UUID] = mapped_column(primary_key=True)
    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id"))
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    index: Mapped[int]
    seed: Mapped[int] = mapped_column(BigInteger)
    width: Mapped[int]
    height: Mapped[int]
    object_key: Mapped[str]
    content_type: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int]
    infotext: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    updated_at: Mapped[datetime] = mapped_column(default=utc_now)
    is_favorited: Mapped[bool] = mapped_column(default=False)
    gallery_status: Mapped[str] = mapped_column(String(32), default="not_submitted")
    was_auto_submitted: Mapped[bool] = mapped_column(default=False)
    is_public: Mapped[bool] = mapped_column(default=False)
    deleted_at: Mapped[datetime | None]
