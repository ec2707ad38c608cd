/** Chooses a class by name: all names when they are few, a search among many. */

import { useEffect, useId, useRef, useState } from "preact/hooks";
import type { ModelInfo } from "../api/types";

const FEW = 16;
/** Number of matches listed; a line of text counts the others. */
const LISTED = 60;

interface Props {
  model: ModelInfo;
  value: string;
  onChange: (value: string) => void;
  label?: string;
}

export function ClassPicker(props: Props) {
  if (!props.model.class_names.length) return null;
  return props.model.class_names.length <= FEW ? <Chips {...props} /> : <Search {...props} />;
}

type Choice = [value: string, name: string];

function choices({ class_names, needs_label }: ModelInfo): Choice[] {
  const named = class_names.map((name, i): Choice => [String(i), name]);
  return needs_label ? named : [...named, ["", "none"]];
}

function Chips({ model, value, onChange, label = "Class" }: Props) {
  const name = useId();
  return (
    <fieldset class="chips">
      <legend>{label}</legend>
      {choices(model).map(([choice, text]) => (
        <label key={choice}>
          <input type="radio" {...{ name }} checked={choice === value} onChange={() => onChange(choice)} />
          <span>{text}</span>
        </label>
      ))}
    </fieldset>
  );
}

function Search({ model, value, onChange, label = "Class" }: Props) {
  const id = useId();
  const list = useRef<HTMLUListElement>(null);
  const [typed, setTyped] = useState<string | null>(null);
  const [active, setActive] = useState(0);
  const all = choices(model);
  const chosenName = all.find(([choice]) => choice === value)?.[1] ?? "";
  const wanted = (typed ?? "").trim().toLowerCase();
  const matches = all.filter(([, name]) => name.toLowerCase().includes(wanted));
  const listed = matches.slice(0, LISTED);
  const open = typed !== null;

  const openList = () => {
    const at = all.findIndex(([choice]) => choice === value);
    setTyped("");
    setActive(at < LISTED ? at : -1); // none: Enter keeps the class that is chosen
  };
  const choose = (choice: Choice | undefined) => {
    if (choice) onChange(choice[0]);
    setTyped(null);
  };
  const move = (to: number) => setActive(Math.min(Math.max(to, 0), listed.length - 1));
  useEffect(() => {
    if (open) list.current?.children[active]?.scrollIntoView({ block: "nearest" });
  }, [open, active]);
  const onKeyDown = (event: KeyboardEvent) => {
    const moves: Record<string, number> = { ArrowDown: active + 1, ArrowUp: active - 1 };
    if (event.key === "Escape") setTyped(null);
    else if (event.key === "Enter" && open) choose(listed[active]);
    else if (!open && event.key === "ArrowDown") openList();
    else if (open && event.key in moves) move(moves[event.key]!);
    else return;
    event.preventDefault();
  };

  return (
    <div class="field wide combobox">
      <label for={id}>{label}</label>
      <input
        id={id}
        role="combobox"
        aria-expanded={open}
        aria-controls={`${id}-list`}
        aria-autocomplete="list"
        {...(open && listed[active] ? { "aria-activedescendant": `${id}-${active}` } : {})}
        autocomplete="off"
        spellcheck={false}
        placeholder={`Search ${model.class_names.length} classes`}
        value={typed ?? chosenName}
        onFocus={(event) => event.currentTarget.select()}
        onClick={() => !open && openList()}
        onInput={(event) => {
          setTyped(event.currentTarget.value);
          setActive(0);
        }}
        onBlur={() => setTyped(null)}
        {...{ onKeyDown }}
      />
      <ul id={`${id}-list`} ref={list} role="listbox" aria-label={label} hidden={!open}>
        {listed.map((choice, i) => (
          <li
            key={choice[0]}
            id={`${id}-${i}`}
            role="option"
            aria-selected={choice[0] === value}
            class={i === active ? "active" : ""}
            onPointerDown={(event) => {
              event.preventDefault();
              choose(choice);
            }}
          >
            {choice[1]}
          </li>
        ))}
        {!listed.length && <li class="quiet">No class has “{typed}” in its name.</li>}
        {matches.length > LISTED && <li class="quiet">… and {matches.length - LISTED} more: type to narrow</li>}
      </ul>
    </div>
  );
}
