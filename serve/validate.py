"""``POST /v1/validate``: what would become of each event of a batch; nothing is stored."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from midstream.envelope import EnvelopeError
from midstream.events.report import judge_body
from midstream.metrics import VALIDATIONS
from serve.auth import require_principal
from serve.bodies import read_body
from serve.errors import ApiError
from serve.openapi import batch_body, error_replies
from serve.services import Services, services_of

router = APIRouter(tags=["telemetry"], dependencies=[Depends(require_principal)])
