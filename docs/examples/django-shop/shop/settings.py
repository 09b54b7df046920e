"""The settings that matter here; yours has many more."""

SECRET_KEY = "an example"  # noqa: S105
INSTALLED_APPS = ["lockkit.integrations.django", "shop"]
ROOT_URLCONF = "shop.urls"
USE_TZ = True

# Keywords of lockkit.connect(); left out here is url="redis://cache", which LOCKKIT_URL may say as well.
LOCKKIT = {"namespace": "shop", "ttl": 30}
