import type { Distro } from "../distro/distro.ts";
import type { ProvisioningPlatform } from "./platform.ts";

export interface ProvisionOptions {
  readonly distro: Distro;
  readonly platform: ProvisioningPlatform;
  /** `<name>/<version>` for the host's records. */
  readonly agent: string;
  /** Tells DHCP and DNS the new name; a failure is only a warning. */
  readonly publishHostName: (name: string) => Promise<void>;
  /** Called after every step and every report, with its name. Tests end the process here. */
  readonly afterStep?: (name: string) => void;
}

export interface ProvisionOutcome {
  readonly status: "provisioned" | "already-provisioned" | "disabled" | "failed";
  /** What the platform was told about a failure; free of secrets. */
  readonly failure: string | undefined;
  /** Present while the platform does not know the outcome: tells it again, resolves to whether it knows now. */
  readonly unreported: (() => Promise<boolean>) | undefined;
}
