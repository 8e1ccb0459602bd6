import type { Fault, FaultRule } from "./fault.ts";
import type { PackageDescription } from "./package.ts";

/**
 * What the emulated host does in one run: plain data, so that it can be written to a file and handed to a host in
 * another process. Every optional member has the default of an ordinary single VM.
 */
export interface Scenario {
  readonly vm?: Partial<VmIdentity>;
  /** The provisioning document on the DVD. Absent: the scenario is not about provisioning. */
  readonly provisioning?: ProvisioningDocument;
  /** The first is in force at start; the others are reached by steps. */
  readonly goalStates: readonly GoalStateDescription[];
  readonly packages?: readonly PackageDescription[];
  readonly hostPlugin?: HostPluginDescription;
  /**
   * Names of tenant certificates in the certificates package; of the first one the key is in it, too. One whose name
   * begins with "ec" has an elliptic key. Default ["tenant"].
   */
  readonly certificates?: readonly string[];
  /** How extension packages and status are stored. Default "http"; "https" needs the guest to trust `Fabric.authority`. */
  readonly storage?: "http" | "https";
  readonly imds?: Readonly<Record<string, unknown>>;
  readonly faults?: readonly FaultRule[];
  readonly steps?: readonly Step[];
  readonly dhcp?: DhcpDescription;
  /** How far the platform's clock is ahead of the machine's; shows in the Date of every answer. Default 0. */
  readonly clockOffsetMs?: number;
}

export interface VmIdentity {
  readonly containerId: string;
  /** Instance id of the role, e.g. "dep.web_IN_0". */
  readonly instanceId: string;
  /** Name of the role's configuration: its text before the first dot is the deployment id. */
  readonly configName: string;
  readonly roleName: string;
  readonly tenantName: string;
  readonly vmId: string;
}

/** The OVF environment document (`provisioning.md` §2). */
export interface ProvisioningDocument {
  readonly hostName: string;
  readonly userName: string;
  readonly password?: string;
  readonly disablePasswordAuthentication?: boolean;
  /** OpenSSH public key lines for the user. */
  readonly sshKeys?: readonly string[];
  /** Text, put into the document as base64. */
  readonly customData?: string;
  /** Default true. */
  readonly provisionGuestAgent?: boolean;
}

export interface GoalStateDescription {
  readonly incarnation: string;
  /** Where the extensions come from. Default "Fabric". */
  readonly source?: "Fabric" | "FastTrack";
  /** When the platform made it: decides between both sources. Default: one second later than the goal state before. */
  readonly createdOn?: string;
  readonly extensions?: readonly ExtensionDescription[];
  readonly families?: readonly FamilyDescription[];
  /** Default "BlockBlob"; "none" leaves the status blob out. */
  readonly statusBlob?: "BlockBlob" | "PageBlob" | "none";
  readonly requiredFeatures?: readonly string[];
  readonly onHold?: boolean;
  readonly remoteUsers?: readonly RemoteUserDescription[];
  /** Changes the VM's identity from here on (a live migration). */
  readonly containerId?: string;
  readonly configName?: string;
  /** false: the goal state has no Certificates element. Default true. */
  readonly hasCertificates?: boolean;
  /** Names of tenant certificates from here on (rotation). */
  readonly certificates?: readonly string[];
  /** When access to the status blob ends. Default 2035. */
  readonly sasExpiry?: string;
}

export interface FamilyDescription {
  readonly name: string;
  readonly version?: string;
  readonly fromVersion?: string;
  readonly isVersionFromRsm?: boolean;
  readonly isVmEnabledForRsmUpgrades?: boolean;
  /** Versions in the agent manifest. Default none. */
  readonly versions?: readonly string[];
}

export interface ExtensionDescription {
  readonly name: string;
  readonly version: string;
  readonly state?: "enabled" | "disabled" | "uninstall";
  readonly encodedSignature?: string;
  /** Single-config settings. */
  readonly settings?: SettingsDescription;
  /** Multi-config settings, by extension name. */
  readonly multi?: readonly (SettingsDescription & {
    readonly name: string;
    readonly state?: "enabled" | "disabled";
  })[];
}

export interface SettingsDescription {
  readonly sequence: number;
  readonly public?: unknown;
  /** The same as JSON text, for numbers and an order of keys that a value cannot hold. */
  readonly publicText?: string;
  /** Encrypted for the first tenant certificate. */
  readonly protected?: unknown;
  readonly dependencyLevel?: number;
  readonly dependsOn?: readonly string[];
}

export interface RemoteUserDescription {
  readonly name: string;
  /** Encrypted for the transport certificate of the request. */
  readonly password: string;
  /** RFC 1123 text, e.g. "Tue, 01 Jan 2030 00:00:00 UTC". */
  readonly expiration: string;
}

export interface HostPluginDescription {
  /** Default "1.0.8.159". */
  readonly version?: string;
  /** false: /vmSettings answers 404. Default true. */
  readonly vmSettings?: boolean;
  /** What GET /versions lists. Default ["2015-09-01"]. */
  readonly apiVersions?: readonly string[];
}

export interface DhcpDescription {
  /** Default "168.63.129.16"; "" leaves option 245 out. */
  readonly endpoint?: string;
  readonly router?: string;
  /** Classless routes of option 249: "10.1.0.0/16 via 10.0.0.1". */
  readonly routes?: readonly string[];
  readonly silent?: boolean;
}

export interface Step {
  readonly when: StepTrigger;
  readonly do: StepAction;
}

/** `afterMs` counts from the start of the host, or from the moment the named event was seen. */
export type StepTrigger =
  | { readonly afterMs: number; readonly seen?: EventMatch }
  | { readonly seen: EventMatch; readonly afterMs?: number };

export interface EventMatch {
  /** Request kind (`request.ts`), "ready", "not-ready", "status", or "status:NAME=STATUS" for an extension. */
  readonly event: string;
  /** Which occurrence. Default the first. */
  readonly count?: number;
}

export type StepAction =
  { readonly goalState: number } | { readonly fault: FaultRule } | { readonly clearFaults: true };

export type { Fault, FaultRule };

export const DEFAULT_VM: VmIdentity = {
  containerId: "5d5c2f1a-0c7e-4d0b-9c38-7a1f0b2e6d11",
  instanceId: "3f8a4c52-9d11-4b0e-8f6e-2b7c5a90e341.web_IN_0",
  configName:
    "3f8a4c52-9d11-4b0e-8f6e-2b7c5a90e341.0.3f8a4c52-9d11-4b0e-8f6e-2b7c5a90e341.0._web.1.xml",
  roleName: "_web",
  tenantName: "3f8a4c52-9d11-4b0e-8f6e-2b7c5a90e341",
  vmId: "a1b2c3d4-1111-4222-8333-444455556666",
};
