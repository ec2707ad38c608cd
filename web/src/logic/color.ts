/** Colors of values. The heat scale is the one of heptapod's own pictures: dark violet, orange, light yellow. */

type Color = [number, number, number];

const HEAT: Color[] = [
  [13, 8, 60],
  [126, 3, 168],
  [204, 71, 120],
  [248, 149, 64],
  [240, 249, 33],
];

/** Early to late. */
const TIME: Color[] = [
  [226, 240, 241],
  [120, 183, 190],
  [45, 125, 143],
  [20, 66, 92],
];

function between(stops: Color[], share: number): Color {
  const position = Math.min(Math.max(share, 0), 1) * (stops.length - 1);
  const low = Math.min(Math.floor(position), stops.length - 2);
  const part = position - low;
  return stops[low]!.map((value, i) => Math.round(value * (1 - part) + stops[low + 1]![i]! * part)) as Color;
}

const css = ([red, green, blue]: Color) => `rgb(${red} ${green} ${blue})`;

/** The color of a share of the highest value, 0 to 1. */
export const heat = (share: number) => css(between(HEAT, share));

/** The color of a share of the time, 0 to 1, and one that can be read on it. */
export function time(share: number): { fill: string; ink: string } {
  return { fill: css(between(TIME, share)), ink: share < 0.65 ? "#000000" : "#ffffff" };
}

const gradient = (stops: Color[]) => `linear-gradient(to right, ${stops.map(css).join(", ")})`;
export const HEAT_GRADIENT = gradient(HEAT);
export const TIME_GRADIENT = gradient(TIME);
