import type { AgentName, Figure, Limit } from "./table.ts";

export interface Plan {
  /** Boots per agent; their median counts. */
  readonly rounds: number;
  readonly idleSeconds: number;
  readonly traceSeconds: number;
  /** Polls before memory is read again. */
  readonly polls: number;
  /** Goal state changes timed. */
  readonly changes: number;
  /** Goal states of the soak. */
  readonly soak: number;
}

export type Phase = (agents: readonly AgentName[], plan: Plan) => Promise<Figure[]>;
export type Measured = Readonly<Record<string, number>>;

/** One figure per key, with the values of all agents. */
export function figures(
  measured: ReadonlyMap<AgentName, Measured>,
  rows: readonly (readonly [key: string, label: string, unit: string, limit?: Limit])[],
): Figure[] {
  return rows.map(([id, label, unit, limit]) => {
    const values: Partial<Record<AgentName, number>> = {};
    for (const [name, result] of measured) {
      const value = result[id];
      if (value !== undefined) values[name] = value;
    }
    return { id, label, unit, values, ...(limit === undefined ? {} : { limit }) };
  });
}

/** Both at once, so that they share whatever else the machine does meanwhile. */
export async function together(
  agents: readonly AgentName[],
  measure: (name: AgentName) => Promise<Measured>,
): Promise<Map<AgentName, Measured>> {
  const results = await Promise.all(
    agents.map(async (name) => [name, await measure(name)] as const),
  );
  return new Map(results);
}
