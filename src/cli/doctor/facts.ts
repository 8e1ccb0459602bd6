import type { Config } from "../../config/table.ts";
import type { Heartbeat } from "../../extensions/heartbeat.ts";
import type { PolicyState } from "../../extensions/policy.ts";
import type { HandlerStatus } from "../../extensions/store.ts";
import type { Mount } from "../../machine/mounts.ts";
import type { Route } from "../../machine/routes.ts";
import type { AgentState, HandlerState } from "../../report/agent-state.ts";
import type { SystemPath } from "../../system/root.ts";
import type { CommandProblem } from "./command-file.ts";

/** Everything the doctor looks at, gathered once; the checks are pure functions of it. */
export interface Facts {
  /** ms since the epoch, by this machine's clock. */
  readonly now: number;
  readonly config: Config;
  /** Oddities of the configuration file, each with file and line. */
  readonly configWarnings: readonly string[];
  readonly agent: AgentFacts;
  readonly network: NetworkFacts;
  readonly machine: MachineFacts;
  readonly handlers: readonly HandlerFacts[];
  /** The folders of handlers could be looked into. */
  readonly seesFolders: boolean;
  readonly policy: { readonly file: SystemPath; readonly state: PolicyState };
  /** What could not be looked at, and why. */
  readonly unseen: readonly string[];
}

export interface AgentFacts {
  /** The daemon that lives now. */
  readonly pid: number | undefined;
  /** Its own account, or that of the last one. */
  readonly state: AgentState | undefined;
  /** `disable_agent` is there. */
  readonly disabled: boolean;
  /** The last ERROR lines of the log. */
  readonly errors: readonly string[];
}

export interface NetworkFacts {
  /** IPv4 address of the WireServer. */
  readonly endpoint: string;
  /** undefined when the table cannot be seen. */
  readonly routes: readonly Route[] | undefined;
  readonly nameServers: readonly string[];
  readonly names: readonly NameFact[];
  readonly wireServer: Answer;
  readonly hostPlugin: Answer;
  readonly imds: Answer;
  readonly storage: readonly StorageFact[];
  /** The proxy that storage is reached through, without its password. */
  readonly proxy: string | undefined;
  /** The rule that keeps root from the WireServer; looked for only when that is silent. */
  readonly blockedBy: string | undefined;
}

export interface NameFact {
  readonly host: string;
  /** What the resolver said; undefined when it knew an address. */
  readonly failure: string | undefined;
}

export interface StorageFact {
  readonly origin: string;
  readonly answer: Answer;
}

/** How a peer answered. "unasked" has its reason among what was not seen. */
export type Answer =
  | { readonly kind: "answered"; readonly status: number; readonly date: number | undefined }
  | { readonly kind: "silent"; readonly reason: string }
  | { readonly kind: "unasked" };

export interface MachineFacts {
  /** Where `Lib.Dir` lies; undefined when mounts cannot be seen. */
  readonly libMount: Mount | undefined;
  readonly space: readonly {
    readonly directory: SystemPath;
    readonly bytes: number;
    readonly inodes: number;
  }[];
  /** As `uname -m` says it. */
  readonly architecture: string;
}

/** One handler that the goal state names or that is installed. */
export interface HandlerFacts {
  readonly name: string;
  readonly version: string;
  /** What the daemon says about it; one for each extension of a multi-config handler. */
  readonly states: readonly HandlerState[];
  /** Recorded by the agent on disk; only root sees it. */
  readonly written: HandlerStatus | undefined;
  readonly commands: readonly {
    readonly operation: string;
    readonly problem: CommandProblem;
  }[];
  /** Settings that cannot be decrypted, each with its reason. */
  readonly undecryptable: readonly { readonly file: SystemPath; readonly reason: string }[];
  readonly badStatus: readonly { readonly file: SystemPath; readonly reason: string }[];
  /** Only of handlers that promise one. */
  readonly heartbeat: Heartbeat | undefined;
}
