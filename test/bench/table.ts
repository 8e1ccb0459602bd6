/** Figures of two agents side by side, and what of them must be reached. Pure. */

export const AGENTS = ["ours", "reference"] as const;
export type AgentName = (typeof AGENTS)[number];

/** What a row must reach: a ratio to the reference, or an absolute value of ours. */
export type Limit = { readonly ratio: number } | { readonly absolute: number };

export interface Figure {
  readonly id: string;
  readonly label: string;
  readonly unit: string;
  /** Absent where an agent was not measured. */
  readonly values: Readonly<Partial<Record<AgentName, number>>>;
  readonly limit?: Limit;
}

export type Verdict = "reached" | "missed" | undefined;

/** Ours divided by the reference's; undefined without both, or when the reference's is zero. */
export function ratioOf({ values }: Pick<Figure, "values">): number | undefined {
  const { ours, reference } = values;
  return ours === undefined || reference === undefined || reference === 0
    ? undefined
    : ours / reference;
}

export function verdictOf(figure: Figure): Verdict {
  const { limit } = figure;
  if (limit === undefined) return undefined;
  const [value, most] =
    "ratio" in limit ? [ratioOf(figure), limit.ratio] : [figure.values.ours, limit.absolute];
  return value === undefined ? undefined : value <= most ? "reached" : "missed";
}

/** The table that `npm run bench` ends with. */
export function renderTable(figures: readonly Figure[]): string {
  const head = ["figure", "unit", "ours", "Python agent", "ratio", "must be", "verdict"];
  const rows = figures.map((figure) => {
    const { limit, values } = figure;
    const ratio = ratioOf(figure);
    return [
      figure.label,
      figure.unit,
      number(values.ours),
      number(values.reference),
      ratio === undefined ? "" : `${number(ratio)}×`,
      limit === undefined ? "" : "ratio" in limit ? `≤ ${limit.ratio}×` : `≤ ${limit.absolute}`,
      verdictOf(figure) ?? "",
    ];
  });
  const widths = head.map((_, column) =>
    Math.max(...[head, ...rows].map((row) => row[column]?.length ?? 0)),
  );
  const line = (row: readonly string[]) =>
    row
      .map((cell, column) => {
        const width = widths[column] ?? 0;
        return column >= 2 && column <= 4 ? cell.padStart(width) : cell.padEnd(width);
      })
      .join("  ")
      .trimEnd();
  return [line(head), line(widths.map((width) => "-".repeat(width))), ...rows.map(line)].join("\n");
}

/** Three significant digits, no exponent. */
function number(value: number | undefined): string {
  if (value === undefined) return "";
  if (value === 0) return "0";
  const digits = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
  return value.toFixed(Math.min(digits, 4));
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length / 2;
  return sorted.length % 2 === 1
    ? (sorted[Math.floor(middle)] ?? 0)
    : ((sorted[middle - 1] ?? 0) + (sorted[middle] ?? 0)) / 2;
}

/** Of the line through the points by least squares; 0 when they do not have two places. */
export function slope(points: readonly (readonly [x: number, y: number])[]): number {
  const mean = (values: readonly number[]) =>
    values.reduce((sum, value) => sum + value, 0) / values.length;
  const x = mean(points.map(([at]) => at));
  const y = mean(points.map(([, value]) => value));
  const spread = points.reduce((sum, [at]) => sum + (at - x) ** 2, 0);
  if (points.length === 0 || spread === 0) return 0;
  return points.reduce((sum, [at, value]) => sum + (at - x) * (value - y), 0) / spread;
}
