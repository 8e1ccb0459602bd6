import { AgentError, describe, type Failure } from "../base/error.ts";
import { redact } from "../base/redact.ts";

/** Numbers the platform knows (`extensions.md` §21.2). */
export const CODE = {
  unknown: -1,
  success: 0,
  processing: 1000,
  download: 1001,
  manifestNotFound: 1002,
  manifestMalformed: 1003,
  install: 1007,
  update: 1008,
  enable: 1009,
  disable: 1010,
  timeout: 1011,
  statusFile: 1012,
  unsupportedFeatures: 2001,
} as const;

/** A failure of one handler whose number for the platform is known where it happens. */
export class HandlerError extends AgentError {
  readonly failureCode: number;
  /** Telemetry operation, where it is not that of the operation under way. */
  readonly operation: string | undefined;
  /** The platform's storage could not be had; a later try may find it (DB-36). */
  readonly isTransient: boolean;

  constructor(
    failureCode: number,
    message: string,
    options: {
      readonly cause?: unknown;
      readonly operation?: string;
      readonly exitCode?: number;
      readonly isTransient?: boolean;
    } = {},
  ) {
    super("exec", message, {
      ...(options.cause === undefined ? {} : { cause: options.cause }),
      ...(options.exitCode === undefined ? {} : { status: options.exitCode }),
    });
    this.name = "HandlerError";
    this.failureCode = failureCode;
    this.operation = options.operation;
    this.isTransient = options.isTransient ?? false;
  }
}

/** The one place where our errors become what the platform is told. */
export function toFailure(error: unknown, operation: string): Failure {
  const message = redact(describe(error));
  if (error instanceof HandlerError)
    return { code: error.failureCode, operation: error.operation ?? operation, message };
  return { code: CODE.unknown, operation, message };
}
