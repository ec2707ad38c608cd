/** Line icons of 24 × 24 units. */

const PATHS = {
  play: "M7 5v14l12-7z",
  pause: "M8 5v14M16 5v14",
  previous: "M15 6l-6 6 6 6",
  next: "M9 6l6 6-6 6",
  first: "M18 6l-6 6 6 6M7 6v12",
  last: "M6 6l6 6-6 6M17 6v12",
  stop: "M7 7h10v10H7z",
  close: "M6 6l12 12M18 6L6 18",
  download: "M12 4v11M7 11l5 5 5-5M5 20h14",
  upload: "M12 16V5M7 9l5-5 5 5M5 20h14",
  branch: "M7 4v16M7 12c6 0 10-1 10-6M14 8l3-3 3 3",
  pin: "M9 4h6l-1 6 3 3v2H7v-2l3-3zM12 15v5",
  brush: "M19 4c-5 3-9 7-10 10l1 1c3-1 7-5 10-10zM8 15c-2 0-3 1-3 3 0 1-1 2-1 2 3 1 6 0 6-3z",
  eraser: "M4 15l9-9 6 6-8 8H8zM9 10l6 6M11 20h9",
  rectangle: "M4 6h16v12H4z",
  invert: "M12 4a8 8 0 100 16 8 8 0 000-16zM12 4v16M12 8h7M12 12h8M12 16h7",
  undo: "M9 6L4 11l5 5M4 11h10a5 5 0 010 10h-2",
  clear: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  edit: "M4 20l1-5L16 4l4 4L9 19z",
  retry: "M20 12a8 8 0 11-3-6M20 4v5h-5",
} as const;

export type IconName = keyof typeof PATHS | "dice";

export function Icon({ name }: { name: IconName }) {
  return (
    <svg class="icon" viewBox="0 0 24 24" aria-hidden="true">
      {name === "dice" ? (
        <>
          <rect x="4" y="4" width="16" height="16" rx="3" />
          {[8.5, 12, 15.5].map((at) => (
            <circle key={at} cx={at} cy={at} r="0.6" fill="currentColor" />
          ))}
        </>
      ) : (
        <path d={PATHS[name]} />
      )}
    </svg>
  );
}

/** Seven cells in a ring, from certain to uncertain. */
export function Logo() {
  const colors = ["#5b50c4", "#8f1fb0", "#b03a94", "#cc4778", "#e26e5c", "#f08a3c", "#d9b61a"];
  return (
    <svg class="logo" viewBox="0 0 32 32" aria-hidden="true">
      {colors.map((color, i) => {
        const angle = (2 * Math.PI * i) / 7 - Math.PI / 2;
        return <circle key={color} cx={16 + 11 * Math.cos(angle)} cy={16 + 11 * Math.sin(angle)} r="3.6" fill={color} />;
      })}
    </svg>
  );
}
