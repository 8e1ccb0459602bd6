import type { Config } from "../config/table.ts";

/**
 * What the agent does at all, by one key (`Agent.Profile`):
 *
 * | profile           | provisions | keeps the machine right | runs extensions | reports |
 * |-------------------|------------|-------------------------|-----------------|---------|
 * | `full`            | yes        | yes                     | yes             | yes     |
 * | `extensions-only` | no         | no                      | yes             | yes     |
 * | `provision-only`  | yes        | no                      | no              | no      |
 * | `report-only`     | no         | no                      | no              | yes     |
 */
export interface Profile {
  readonly provisions: boolean;
  /** Resource disk, firewall, timeouts, routes, host name. */
  readonly keepsMachine: boolean;
  readonly runsExtensions: boolean;
  /** Goal state, status, telemetry, health. */
  readonly reports: boolean;
}

const PROFILES: Readonly<Record<string, Profile>> = {
  full: { provisions: true, keepsMachine: true, runsExtensions: true, reports: true },
  "extensions-only": {
    provisions: false,
    keepsMachine: false,
    runsExtensions: true,
    reports: true,
  },
  "provision-only": {
    provisions: true,
    keepsMachine: false,
    runsExtensions: false,
    reports: false,
  },
  "report-only": { provisions: false, keepsMachine: false, runsExtensions: false, reports: true },
};

/** The profile of the configuration; the full one for a word that is none, of which the configuration has warned. */
export function profileOf(config: Pick<Config, "Agent.Profile">): Profile {
  const name = config["Agent.Profile"];
  return (
    (Object.hasOwn(PROFILES, name) ? PROFILES[name] : undefined) ?? (PROFILES["full"] as Profile)
  );
}

/** What extensions are told by: without the right to run them they are only reported (`extensions.md` EXT-20). */
export function withProfile(config: Config): Config {
  return profileOf(config).runsExtensions ? config : { ...config, "Extensions.Enabled": false };
}
