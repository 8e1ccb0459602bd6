import { AgentError } from "../base/error.ts";
import type { System } from "../system/system.ts";
import { HandlerError } from "./failure.ts";

/** The first pause before a failed download is tried again; each further one is twice as long, up to the last. */
const FIRST_RETRY_MS = 30_000;
const MAX_RETRY_MS = 600_000;

/** A failed download is tried again within the pass, when the operator wants that (`extensions.md` DB-36). */
export interface Retry {
  /** ms since the epoch. */
  readonly at: number;
  /** Why, and which try of how many it will be. */
  readonly message: string;
}

/** When a failed item is tried once more; undefined when it is over. */
export function retryOf(
  system: Pick<System, "clock">,
  error: unknown,
  options: {
    /** So far. */
    readonly tries: number;
    /** `Extensions.DownloadRetries`; the platform expects 0 (EXT-84). */
    readonly limit: number;
    readonly superseded: AbortSignal;
  },
): Retry | undefined {
  const { tries, limit, superseded } = options;
  const isTransient = error instanceof HandlerError && error.isTransient;
  if (!isTransient || tries > limit || superseded.aborted) return undefined;
  // Not all machines of a scale set at the same moment.
  const jitter = 0.8 + 0.4 * Math.random();
  const delay = Math.min(MAX_RETRY_MS, FIRST_RETRY_MS * 2 ** (tries - 1)) * jitter;
  return {
    at: system.clock.now() + delay,
    message: `The download failed and will be tried again in ${Math.round(delay / 1000)} s (${tries} of ${limit})`,
  };
}

/** Until that moment, or until a newer goal state waits: then the last try is now. Errors: AgentError "cancelled". */
export async function pause(
  system: Pick<System, "clock">,
  { at }: Retry,
  options: { readonly signal: AbortSignal | undefined; readonly superseded: AbortSignal },
): Promise<void> {
  const { signal, superseded } = options;
  const either = signal === undefined ? superseded : AbortSignal.any([signal, superseded]);
  try {
    await system.clock.sleep(Math.max(0, at - system.clock.now()), either);
  } catch (error) {
    if (!(error instanceof AgentError) || !superseded.aborted || signal?.aborted === true)
      throw error;
  }
}
