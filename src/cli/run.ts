import path from "node:path";
import { describe } from "../base/error.ts";
import type { AgentContext } from "../agent/context.ts";
import {
  onUncaught,
  exit,
  programName,
  runtimeVersion,
  userId,
  workingDirectory,
  writeStderr,
  writeStdout,
} from "../system/process.ts";
import type { SystemPath } from "../system/root.ts";
import { type Arguments, parseArguments, type Verb } from "./arguments.ts";
import { EXIT } from "./exit-codes.ts";
import { helpText } from "./help.ts";
import { VERBS } from "./verbs.ts";

/**
 * Runs one command line and resolves to its exit code. Modules that only one command needs are loaded by it, so that
 * `-version` and `-help` start fast. The one place where an error of a command ends: it is logged as a chain, and the
 * code says that something failed (DB-19; the Python agent exits 0).
 */
export async function run(argv: readonly string[]): Promise<number> {
  const given = parseArguments(argv);
  if ("operator" in given) {
    const { runOperator } = await import("./operator.ts");
    return await runOperator(given);
  }
  const { earlySystem } = await import("./early.ts");
  const early = earlySystem(given.root);
  if (early.files.stat("/")?.kind !== "directory") {
    writeStderr(`--root=${given.root} is not a directory\n`);
    return EXIT.usage;
  }
  const configured = given.configurationPaths.map((text) => configurationPath(text, given.root));
  for (const file of configured) {
    if (early.files.exists(file)) continue;
    writeStderr(`The configuration file ${file} does not exist\n`);
    writeStdout(helpText(programName()));
    return EXIT.failure;
  }
  switch (given.verb) {
    case "help":
      writeStdout(helpText(programName()));
      return EXIT.ok;
    case "version": {
      const { versionText } = await import("./version.ts");
      writeStdout(await versionText(early, runtimeVersion()));
      return EXIT.ok;
    }
    case "start": {
      const { startDaemon } = await import("./service.ts");
      startDaemon(given, configured.at(-1));
      return EXIT.ok;
    }
    default:
      return await runConfigured(given, given.verb, configured.at(-1));
  }
}

type ConfiguredVerb = Exclude<Verb, "help" | "version" | "start">;

/** The commands that read the configuration and have a log (CLI-08, `system.md` LOG-05). */
async function runConfigured(
  given: Arguments,
  verb: ConfiguredVerb,
  configured: SystemPath | undefined,
): Promise<number> {
  const definition = VERBS[verb];
  if (given.dryRun && definition.dryRun !== true) {
    writeStderr(`-${verb} cannot be tried with --dry-run\n`);
    return EXIT.usage;
  }
  if (definition.needsRoot && given.root === undefined && userId() !== 0) {
    writeStderr(`-${verb} must be run as root\n`);
    return EXIT.failure;
  }
  const { createContext, prepareGround } = await import("./context.ts");
  const ground = await prepareGround(given.root, configured);
  const context = createContext(ground, {
    identity: definition.identity,
    verbose: given.verbose,
    // What show-configuration prints is read by programs: nothing else may stand between its lines.
    write: verb === "show-configuration" ? writeStderr : writeStdout,
  });
  const { log } = context.system;
  onUncaught((error) => {
    log.error(`Unhandled error in '${verb}': ${describe(error)}`);
    exit(EXIT.failure);
  });
  try {
    return await dispatch(context, given, verb, configured);
  } catch (error) {
    log.error(`Failed to run '${verb}': ${describe(error)}`);
    return EXIT.failure;
  }
}

async function dispatch(
  context: Omit<AgentContext, "arguments">,
  given: Arguments,
  verb: ConfiguredVerb,
  configured: SystemPath | undefined,
): Promise<number> {
  switch (verb) {
    case "daemon":
    case "run-exthandlers": {
      const { runDaemon } = await import("../agent/daemon.ts");
      return await runDaemon({
        ...context,
        arguments: {
          verb,
          verbose: given.verbose,
          debug: given.debug,
          configurationPath: configured,
        },
      });
    }
    case "show-configuration": {
      const { showConfiguration } = await import("../config/show.ts");
      writeStdout(showConfiguration(context.config));
      return EXIT.ok;
    }
    case "register-service": {
      const { registerService } = await import("./service.ts");
      await registerService(context, writeStdout);
      return EXIT.ok;
    }
    case "setup-firewall": {
      const { setupFirewall } = await import("./firewall.ts");
      return await setupFirewall(context, given.endpoint ?? "", userId());
    }
    case "serialconsole": {
      const { serialConsole } = await import("./serial-console.ts");
      return await serialConsole(context, { dryRun: given.dryRun });
    }
    case "deprovision":
    case "deprovision+user": {
      const { deprovision } = await import("./deprovision.ts");
      return await deprovision(context, {
        user: verb === "deprovision+user",
        force: given.force,
        dryRun: given.dryRun,
      });
    }
    case "collect-logs": {
      const { collectLogs } = await import("./collect-logs.ts");
      return await collectLogs(context, { full: given.full });
    }
  }
}

/** As the file is seen by the agent: relative to the working directory, or a path below a scratch root. */
export function configurationPath(text: string, root: string | undefined): SystemPath {
  return path.posix.resolve(root === undefined ? workingDirectory() : "/", text) as SystemPath;
}
