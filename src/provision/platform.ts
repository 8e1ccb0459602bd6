/**
 * The platform as provisioning sees it. The agent gives the real one (WireServer client, certificates, health
 * report); tests give one that writes down what it was told.
 */
export interface ProvisioningPlatform {
  /** The first part of `detect`, after which reports can be made. Errors: as `detect`. */
  identify(): Promise<void>;
  /**
   * Finds the endpoint, fetches the goal state and its certificates into the state directory (PROV-09).
   * A success is remembered. Errors: AgentError "protocol-not-found" when the time for it is over.
   */
  detect(): Promise<void>;
  /** Resolves to whether the platform knows now; its own retries are bounded (HLTH-05, DB-23). */
  reportNotReady(
    subStatus: "Provisioning" | "ProvisioningFailed",
    description: string,
  ): Promise<boolean>;
  reportReady(): Promise<boolean>;
  /** The SSH host key's fingerprint as a role property (HLTH-08). Left out where the platform has no use for it. */
  reportFingerprint?(fingerprint: string): Promise<void>;
}
