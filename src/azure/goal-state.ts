import type { Json } from "../base/json.ts";
import type { Secret } from "../base/secret.ts";

/**
 * What the platform wants, as one immutable value. Parsed at the edge (extensions-config.ts, vm-settings.ts);
 * a new goal is a new value and no module holds an older or newer one.
 */
export interface GoalState {
  /** Opaque text; only equality counts (`wire-protocol.md` GS-01). */
  readonly incarnation: string;
  readonly vm: VmIdentity;
  readonly extensions: ExtensionsGoalState;
  /** Thumbprints the platform sent with this goal state, first appearance first (CERT-15). */
  readonly certificates: readonly CertificateSummary[];
  readonly remoteAccess: RemoteAccess | undefined;
}

export interface VmIdentity {
  readonly containerId: string;
  readonly instanceId: string;
  /** `ConfigName`; the text before its first dot is the deployment id (GS-04). */
  readonly configName: string;
  /** From HostingEnvironmentConfig (GS-50); undefined when it was not fetched. */
  readonly vmName?: string | undefined;
  readonly roleName?: string | undefined;
  readonly tenantName?: string | undefined;
}

export interface ExtensionsGoalState {
  /** `incarnation_<N>` or `etag_<ETag>` (GS-31). */
  readonly id: string;
  readonly source: "Fabric" | "FastTrack" | "Empty";
  readonly channel: "WireServer" | "HostGAPlugin" | "Empty";
  readonly activityId: string;
  readonly correlationId: string;
  /** TS6 (ECFG-06). */
  readonly createdAt: string;
  /** Reported back as is: number for FastTrack, incarnation text for Fabric (STAT-14). */
  readonly sequence: string | number;
  readonly onHold: boolean;
  /** Fabric goal state older than the last FastTrack one while vmSettings are gone (VMS-17): not processed. */
  readonly outdated: boolean;
  readonly statusBlob: StatusBlob | undefined;
  readonly requiredFeatures: readonly string[];
  readonly agentFamilies: readonly AgentFamily[];
  readonly handlers: readonly HandlerGoal[];
  /** The host plugin is new enough to carry package signatures (VMS-22). Always true for Fabric. */
  readonly signatureCapable: boolean;
}

export interface StatusBlob {
  /** SAS URL: a secret, print it only through redact(). */
  readonly url: string;
  readonly type: "BlockBlob" | "PageBlob";
}

export interface AgentFamily {
  readonly name: string;
  readonly version: string | undefined;
  readonly fromVersion: string | undefined;
  readonly isVersionFromRsm: boolean | undefined;
  readonly isVmEnabledForRsmUpgrades: boolean | undefined;
  readonly uris: readonly string[];
}

export interface HandlerGoal {
  readonly name: string;
  readonly version: string;
  /** As requested; undefined when the text is none of the three, then `invalid` says so. */
  readonly state: "enabled" | "disabled" | "uninstall" | undefined;
  readonly manifestUris: readonly string[];
  readonly multiConfig: boolean;
  /** "" when there is none. */
  readonly encodedSignature: string;
  readonly settings: readonly SettingsGoal[];
  /** Why this handler cannot be processed (EXT-28); the others go on. */
  readonly invalid: string | undefined;
}

export interface SettingsGoal {
  /** Handler name for single-config, extension name for multi-config. */
  readonly name: string;
  readonly sequence: number;
  readonly state: "enabled" | "disabled";
  /** Lossless; null survives (EXT-09, EXT-10). */
  readonly publicSettings: Json;
  /** Base64 CMS envelope, passed on verbatim (EXT-55). */
  readonly protectedSettings: string | null;
  readonly thumbprint: string | null;
  readonly dependencyLevel: number;
  /** Who this one waits for, where the goal state says so; informational for the order of levels (SEQ-08, DB-02). */
  readonly dependsOn: readonly {
    readonly handler: string;
    readonly extension: string | undefined;
  }[];
}

export interface CertificateSummary {
  /** SHA-1 of the DER, upper-case hex. */
  readonly thumbprint: string;
  readonly hasPrivateKey: boolean;
}

export interface RemoteAccess {
  readonly incarnation: string;
  readonly users: readonly RemoteUser[];
  /** There is a list, but it could not be asked for: nobody is made or removed. */
  readonly isUnknown?: boolean;
}

export interface RemoteUser {
  readonly name: string;
  /** Base64 CMS envelope of the UTF-16 password (JIT-08). */
  readonly encryptedPassword: Secret;
  /** ms since the epoch; undefined when the text cannot be read (JIT-04). */
  readonly expiresAt: number | undefined;
  readonly expirationText: string;
}

export const ZERO_GUID = "00000000-0000-0000-0000-000000000000";
