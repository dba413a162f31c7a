"""A repository on the Hugging Face Hub for an exported policy."""

from pathlib import Path

import httpx
from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import RepositoryNotFoundError

from openrs_ray.common import hub
from openrs_ray.common.foreign import why
from openrs_ray.errors import RunError, UserError
from openrs_ray.models.bundled import looks_like_hub_id


def check_repository(repo: str, public: bool) -> None:
    """UserError unless the user is logged in and, where the repository exists, it is as private as asked for."""
    if not looks_like_hub_id(repo):
        raise UserError(f"--push-to {repo} is no name of a repository: write OWNER/NAME")
    if get_token() is None:
        raise UserError("nobody is logged in to the Hub on this machine: run `hf auth login`, or set HF_TOKEN")
    if reason := hub.problem():
        raise UserError(f"the Hub cannot be reached ({reason}): export without --push-to, and push the folder later")
    api = HfApi(endpoint=constants.ENDPOINT)
    try:
        private = api.repo_info(repo).private
    except RepositoryNotFoundError:
        return
    except (httpx.HTTPError, OSError, ValueError) as error:  # the last: a name that the Hub does not allow
        raise UserError(f"the Hub refuses to tell about {repo}: {why(error)}") from error
    if not private and not public:
        raise UserError(f"{repo} exists and is public: add --public to push there, or name another repository")


def push(folder: Path, repo: str, public: bool) -> str:
    """Make the repository, private unless `public`, and upload the folder; returns its address. RunError."""
    api = HfApi(endpoint=constants.ENDPOINT)
    try:
        api.create_repo(repo, private=not public, exist_ok=True)
        commit = api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Upload the model")
    except (httpx.HTTPError, OSError, ValueError) as error:
        raise RunError(
            f"the export in {folder} is whole, but the Hub did not take it: {why(error)}; push it later with "
            f"`hf upload {repo} {folder}`"
        ) from error
    return str(commit.repo_url)
