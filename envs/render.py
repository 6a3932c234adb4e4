"""Pictures of an instance and a decision, drawn by matplotlib without a display and only when asked for."""

from __future__ import annotations



