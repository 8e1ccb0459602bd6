import type { Origin } from "../config/parse.ts";
import type { Config, ConfigKey } from "../config/table.ts";
import type { Distro } from "../distro/distro.ts";
import type { SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";

/** What the command line asks of a long-running part of the agent. */
export interface AgentArguments {
  readonly verb: "daemon" | "run-exthandlers";
  readonly verbose: boolean;
  /** `-debug`: `-run-exthandlers` does not ask whether its daemon still lives (`provisioning.md` CLI-07). */
  readonly debug: boolean;
  /** As given with `-configuration-path:`; passed on to children. */
  readonly configurationPath: SystemPath | undefined;
}

/** Everything a command of the agent works with; made once, by the command line. */
export interface AgentContext {
  readonly system: System;
  readonly config: Config;
  /** Where each value of the configuration comes from. */
  readonly origins: Readonly<Record<ConfigKey, Origin>>;
  /** The configuration file that was read; undefined when there was none. */
  readonly configFile: SystemPath | undefined;
  readonly distro: Distro;
  readonly arguments: AgentArguments;
  /** Four numeric parts. */
  readonly version: string;
}
