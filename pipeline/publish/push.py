"""Push a folder to the Hugging Face hub, by its library's own resumable upload."""

from pathlib import Path
from typing import Literal

import httpx2
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

from models.checkpoints.locate import plain_reason
from shards.errors import CapfiltError

Kind = Literal["model", "dataset"]


class PushError(CapfiltError, RuntimeError):
    """A folder that could not be pushed; the message says what to do."""


def push(folder: Path, repo: str, kind: Kind, *, private: bool = True) -> str:
    """Upload a folder to a repo, which is made if it is not there; return its address.

    Files that are there already are not sent again, so that a broken upload is taken up by the same
    call. The endpoint is HF_ENDPOINT's, and the token what `hf auth login` or HF_TOKEN left. Raises
    PushError.
    """
    api = HfApi()
    try:
        created = api.create_repo(repo, repo_type=kind, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=created.repo_id,
            folder_path=folder,
            repo_type=kind,
            commit_message="Upload by capfilt",
        )
    except (HFValidationError, LocalTokenNotFoundError) as error:
        raise PushError(f"{repo}: {error}") from error
    except HfHubHTTPError as error:
        raise PushError(_refusal(repo, api.endpoint, error)) from error
    except (OSError, RuntimeError, httpx2.TransportError) as error:  # of a lost connection
        raise PushError(
            f"{repo}: the upload to {api.endpoint} broke off ({plain_reason(error)}); {folder} is "
            "whole: run the same command again, and what arrived is not sent twice"
        ) from error
    return str(created)


def _refusal(repo: str, endpoint: str, error: HfHubHTTPError) -> str:
    status = error.response.status_code if error.response is not None else None
    if status in (401, 403):
        return (
            f"{repo}: {endpoint} refuses (HTTP {status}); set HF_TOKEN to a token that may write, "
            "or run `hf auth login`"
        )
    return f"{repo}: {endpoint} answers HTTP {status}: {error.server_message or error}"
