"""Whether consumer groups are alive, as their coordinator sees them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError, KafkaError

from midstream.kafka.connection import connection
from midstream.settings import Settings


class GroupStates:
    """Asks Kafka for the state of groups. Belongs to one event loop; connects when it is first asked."""

    def __init__(self, settings: Settings, request_timeout_ms: int) -> None:
        self._settings = settings
        self._request_timeout_ms = request_timeout_ms
        self._admin: AIOKafkaAdminClient | None = None
        self._lock = asyncio.Lock()

    async def describe(self, groups: Sequence[str]) -> dict[str, tuple[str, int]]:
        """Return each group's state (``Stable`` when it works) and its number of members; a group may be left out.

        Raises:
            KafkaError: Kafka cannot tell now. The next call connects anew.
        """
        async with self._lock:
            try:
                if self._admin is None:
                    admin = AIOKafkaAdminClient(
                        **connection(self._settings),
                        client_id="midstream-api",
                        request_timeout_ms=self._request_timeout_ms,
                    )
                    self._admin = admin
                    await admin.start()
                # One a request: aiokafka reads the answer of version 3 by the schema of version 2, which goes wrong
                # from the second group on (aiokafka 0.14, DescribeGroupsRequest_v3.RESPONSE_TYPE).
                responses = [
                    response for group in groups for response in await self._admin.describe_consumer_groups([group])
                ]
            except GroupCoordinatorNotAvailableError:
                return {}  # Kafka makes the coordinators' topic when the first group comes
            except BaseException:
                # A half-open client, or one whose wait was cancelled, is not used again.
                await self._close()
                raise
        states: dict[str, tuple[str, int]] = {}
        for response in responses:
            for described in response.groups:
                error_code, group, state, _, _, members = described[:6]
                if error_code:
                    raise KafkaError(f"group {group}: Kafka's error {error_code}")
                states[group] = (state, len(members))
        return states

    async def close(self) -> None:
        """Close the connection."""
        async with self._lock:
            await self._close()

    async def _close(self) -> None:
        admin, self._admin = self._admin, None
        if admin is not None:
            await admin.close()
