import { version } from "../../package.json" with { type: "json" };

/** How the platform and its tools know an agent of this kind (design D8). */
export const AGENT_NAME = "WALinuxAgent";

/** Four numeric parts (`extensions.md` UPD-38); never derived from the working directory. */
export const VERSION: string = version;

/** "WALinuxAgent-2.15.0.1" */
export const AGENT_LONG_NAME = `${AGENT_NAME}-${VERSION}`;

/** `User-Agent` of requests that do not set one (`wire-protocol.md` HTTP-02). */
export const USER_AGENT = `${AGENT_NAME}/${VERSION}`;
