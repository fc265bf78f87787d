"""Backends for cache libraries that an app already uses, one module for each library.

| library | module | extra |
| --- | --- | --- |
| cachelib | `reprise_client.adapters.cachelib` | `reprise-client[cachelib]` |
| Flask-Caching | `reprise_client.adapters.flask_caching` | `reprise-client[flask]` |
| dogpile.cache | `reprise_client.adapters.dogpile` | `reprise-client[dogpile]` |
| Django | `reprise_client.adapters.django` | `reprise-client[django]` |
| requests-cache | `reprise_client.adapters.requests_cache` | `reprise-client[requests]` |

Each keeps the names, defaults, return values and the meaning of timeouts of its library. A
service that is gone or slow is a miss, or a write that did not happen; `strict` makes it an
exception. Pickles are signed with a secret of the app, and not read without a valid signature.
"""

from __future__ import annotations
