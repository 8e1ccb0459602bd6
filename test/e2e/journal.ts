import { JOURNAL } from "../fabric/package.ts";
import type { Sandbox } from "./sandbox.ts";

/** One command of a test extension, as its script noted it. */
export interface JournalEntry {
  /** Milliseconds since 1970. */
  readonly time: number;
  readonly command: string;
  /** Undefined when the handler got no sequence number. */
  readonly sequence: number | undefined;
  readonly version: string;
  /** Extension of a multi-config handler. */
  readonly extension: string | undefined;
  readonly handler: string;
}

/** What the test extensions of a guest were told to do so far, in order. */
export function journal(sandbox: Pick<Sandbox, "read" | "exists">): JournalEntry[] {
  if (!sandbox.exists(JOURNAL)) return [];
  const given = (word: string | undefined) => (word === "-" ? undefined : word);
  return sandbox
    .read(JOURNAL)
    .trim()
    .split("\n")
    .filter((line) => line.split(" ").length === 6)
    .map((line) => {
      const [time, command, sequence, version, extension, handler] = line.split(" ");
      return {
        time: Number(time) * 1000,
        command: command!,
        sequence: given(sequence) === undefined ? undefined : Number(sequence),
        version: version!,
        extension: given(extension),
        handler: handler!,
      };
    });
}
