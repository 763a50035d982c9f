"""The broker's wire: what builders and hosts may ask of `api/internal`, over a unix socket or by TLS.

Every request carries `Authorization: Bearer <credential>`: a role's, or a host's or a builder's own. A host speaks for
itself alone, and reaches the rollouts and environments that it has a part in. A builder's process shows in
`Headway-Holder` what it alone knows: what it begins is its own, and nobody else's, until it lets go of it or is silent
(409 `attempt.held`). Its request names its attempt: what an earlier attempt sends, or another process, is refused with
409 `attempt.stale`, so a worker that was frozen and comes back changes nothing.

| method, path | role | body → answer |
|---|---|---|
| GET  /builder | builder | → KnownBuilder |
| DELETE /leases/{id} | builder | → {} |
| POST /builds/{build_id}/begin | builder | Begin → BuildSpec |
| POST /builds/{build_id}/fetched | builder | Fetched → Wire |
| POST /builds/{build_id}/repository | builder | WantedRepository → a git bundle of the site's own repository |
| POST /builds/{build_id}/earlier | builder | Inputs → Earlier |
| POST /builds/{build_id}/secrets | builder | WantedSecrets → BuildSecrets |
| POST /builds/{build_id}/packs | builder | WantedPacks → Addresses |
| POST /builds/{build_id}/cache | builder | WantedCache → StoredCache |
| POST /builds/{build_id}/cached | builder | KeptCache → {} |
| POST /builds/{build_id}/contents | builder | Contents → Missing |
| POST /builds/{build_id}/uploads | builder | UploadRequest → Upload |
| POST /builds/{build_id}/output | builder | Output → Accepted |
| POST /jobs/{job_id}/events | any | Events → Heard |
| POST /execs/{job_id}/begin | builder | Begin → ExecSpec |
| POST /execs/{job_id}/packs | builder | WantedPacks → Addresses |
| POST /execs/{job_id}/uploads | builder | UploadRequest → Upload |
| POST /execs/{job_id}/output | builder | ExecOutput → Heard |
| POST /looks/{site_id}/begin | builder | BeginLook → LookSpec |
| POST /looks/{site_id}/seen | builder | Seen → Taken |
| GET  /rollouts/{rollout_id} | host | → RollSpec |
| POST /rollouts/{rollout_id}/ready | host | Ready → RollSpec |
| POST /rollouts/{rollout_id}/commit | host | → Committed |
| POST /jobs/{job_id}/take | host | WantedTurn → Turn |
| GET  /rollouts/{rollout_id}/config | host | → SealedConfig |
| POST /commands/{job_id}/begin | host | → CommandSpec |
| PUT  /hosts/{host_id} | host | HostHello → Known |
| GET  /hosts/{host_id}/coming | host | → Coming, after a wait |
| POST /hosts/{host_id}/drifts | host | Drifts → Noted |
| POST /hosts/{host_id}/serving | host | Serving → Leftovers |
| POST /hosts/{host_id}/leads | host | Leads → Misled |
| POST /hosts/{host_id}/mounts | host | Mounts → Deleted |
| POST /findings/{finding_id} | host | Offer → MendSpec |
| GET  /environments/{env_id}/hostnames | host | → Hostnames |
| POST /environments/{env_id}/logs | host | LogBatch → LogHeard |
| POST /environments/{env_id}/requests | host | RequestBatch → RequestsHeard |
| GET  /health | any | → {} |

A long body comes with `Content-Encoding: zstd`.
Errors: `{"error": {"code", "message", "param"?}}` with the status of `headway.errors.CODES`.
"""

from __future__ import annotations

from headway.broker.builds import Accepted as Accepted
from headway.broker.builds import Addresses as Addresses
from headway.broker.builds import Begin as Begin
from headway.broker.builds import BuildOverrides as BuildOverrides
from headway.broker.builds import BuildSecrets as BuildSecrets
from headway.broker.builds import BuildSpec as BuildSpec
from headway.broker.builds import Contents as Contents
from headway.broker.builds import Earlier as Earlier
from headway.broker.builds import Fetched as Fetched
from headway.broker.builds import Inputs as Inputs
from headway.broker.builds import KeptCache as KeptCache
from headway.broker.builds import KnownBuilder as KnownBuilder
from headway.broker.builds import Missing as Missing
from headway.broker.builds import NewPack as NewPack
from headway.broker.builds import Output as Output
from headway.broker.builds import PackEntry as PackEntry
from headway.broker.builds import RepositoryAccess as RepositoryAccess
from headway.broker.builds import SnapshotSource as SnapshotSource
from headway.broker.builds import StoredCache as StoredCache
from headway.broker.builds import Upload as Upload
from headway.broker.builds import UploadRequest as UploadRequest
from headway.broker.builds import WantedCache as WantedCache
from headway.broker.builds import WantedPacks as WantedPacks
from headway.broker.builds import WantedRepository as WantedRepository
from headway.broker.builds import WantedSecrets as WantedSecrets
from headway.broker.commands import CommandSpec as CommandSpec
from headway.broker.commands import ExecFile as ExecFile
from headway.broker.commands import ExecOutput as ExecOutput
from headway.broker.commands import ExecSpec as ExecSpec
from headway.broker.commands import InputPart as InputPart
from headway.broker.commands import WantedInput as WantedInput
from headway.broker.events import Event as Event
from headway.broker.events import Events as Events
from headway.broker.events import Heard as Heard
from headway.broker.events import LastWords as LastWords
from headway.broker.hosts import Deleted as Deleted
from headway.broker.hosts import DriftNote as DriftNote
from headway.broker.hosts import Drifts as Drifts
from headway.broker.hosts import HostHello as HostHello
from headway.broker.hosts import Known as Known
from headway.broker.hosts import Leads as Leads
from headway.broker.hosts import Leftovers as Leftovers
from headway.broker.hosts import MendSpec as MendSpec
from headway.broker.hosts import Misled as Misled
from headway.broker.hosts import Mounts as Mounts
from headway.broker.hosts import Noted as Noted
from headway.broker.hosts import Offer as Offer
from headway.broker.hosts import Serving as Serving
from headway.broker.hosts import leads_digest as leads_digest
from headway.broker.looks import BeginLook as BeginLook
from headway.broker.looks import LookSpec as LookSpec
from headway.broker.looks import Seen as Seen
from headway.broker.looks import Taken as Taken
from headway.broker.observed import InstanceLines as InstanceLines
from headway.broker.observed import LastHeard as LastHeard
from headway.broker.observed import LogBatch as LogBatch
from headway.broker.observed import LogHeard as LogHeard
from headway.broker.observed import RequestBatch as RequestBatch
from headway.broker.observed import RequestLine as RequestLine
from headway.broker.observed import RequestMinute as RequestMinute
from headway.broker.observed import RequestsHeard as RequestsHeard
from headway.broker.rolls import Coming as Coming
from headway.broker.rolls import Committed as Committed
from headway.broker.rolls import Hostnames as Hostnames
from headway.broker.rolls import Parcel as Parcel
from headway.broker.rolls import Ready as Ready
from headway.broker.rolls import RollSpec as RollSpec
from headway.broker.rolls import SealedConfig as SealedConfig
from headway.broker.rolls import Turn as Turn
from headway.broker.rolls import WantedTurn as WantedTurn
from headway.broker.wire import HOLDER as HOLDER
from headway.broker.wire import MAX_PACKS as MAX_PACKS
from headway.broker.wire import TLS_NAME as TLS_NAME
from headway.broker.wire import Wire as Wire
