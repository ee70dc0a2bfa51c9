"""Hub repos in and out, through huggingface_hub's own functions; each failure is an error that names the way out.

Imported only when a Hub repo is asked for: huggingface_hub takes as long to import as the rest of a cold start.
"""

from csvae_hub.hub_client.download import download
from csvae_hub.hub_client.explain import CARD, COMPANIONS, PICTURE, REQUIRED
from csvae_hub.hub_client.upload import is_stamped, stamp, upload

__all__ = ["CARD", "COMPANIONS", "PICTURE", "REQUIRED", "download", "is_stamped", "stamp", "upload"]
