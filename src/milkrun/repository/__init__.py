"""The one door to a git repository: read a commit's files, commit one file. No checkout, shell or hook."""

from milkrun.repository.commit import commit_file, commit_nothing, create
from milkrun.repository.git import require_git
from milkrun.repository.mirror import Mirror, is_remote, shown_url
from milkrun.repository.push import push
from milkrun.repository.quick import QuickReader
from milkrun.repository.reading import File, Repository, Tip
from milkrun.repository.tips import Sight, local_tips, mirrored_tips

__all__ = [
    "File",
    "Mirror",
    "QuickReader",
    "Repository",
    "Sight",
    "Tip",
    "commit_file",
    "commit_nothing",
    "create",
    "is_remote",
    "local_tips",
    "mirrored_tips",
    "push",
    "require_git",
    "shown_url",
]
