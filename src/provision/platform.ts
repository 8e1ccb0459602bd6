/**
 * The platform as provisioning sees it. The agent gives the real one (WireServer client, certificates, health
 * report); tests give one that writes down what it was told.
 */
export interface ProvisioningPlatform {
  /**
   * Finds the endpoint, fetches the goal state and its certificates into the state directory (PROV-09).
   * Errors: AgentError "protocol-not-found" when the time for it is over.
   */
  detect(): Promise<void>;
  /** Errors: AgentError when the platform could not be told (HLTH-07: provisioning goes on). */
  reportNotReady(
    subStatus: "Provisioning" | "ProvisioningFailed",
    description: string,
  ): Promise<void>;
  reportReady(): Promise<void>;
  /** The SSH host key's fingerprint as a role property (HLTH-08). Left out where the platform has no use for it. */
  reportFingerprint?(fingerprint: string): Promise<void>;
}
