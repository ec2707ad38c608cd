/** Understand: how a model was trained, what it drew meanwhile, and how good it is in how many steps. */

import { signal } from "@preact/signals";
import { useEffect, useState } from "preact/hooks";
import { getRun } from "../../api/client";
import type { ModelInfo, RunAnswer } from "../../api/types";
import { figure, words } from "../../logic/curves";
import { chosen, model, served } from "../../store/models";
import { remember, route } from "../../store/route";
import { Notice, Segments } from "../../ui/fields";
import { Icon } from "../../ui/icons";
import { ModelFacts } from "../../ui/model_facts";
import { Evaluations } from "./evaluations";
import { Training } from "./training";

const answers = signal<Record<string, RunAnswer>>({});
const problem = signal<string | null>(null);
const stage = signal("model");

export function UnderstandPage() {
  const here = route.value;
  useEffect(() => {
    const name = here.query.get("model");
    if (name) chosen.value = name;
  }, [here]);
  const shown = model.value;
  const [tries, setTries] = useState(0);
  useEffect(() => {
    if (!shown) return;
    remember("understand", (served.peek()?.models.length ?? 0) > 1 ? [["model", shown.name]] : []);
    problem.value = null;
    if (!shown.has_run) return;
    getRun(shown.name).then(
      (answer) => (answers.value = { ...answers.peek(), [shown.name]: answer }),
      (error: Error) => {
        if (model.peek()?.name === shown.name) problem.value = error.message;
      },
    );
  }, [shown?.name, here, tries]);
  if (!shown) return null;
  return (
    <main class="understand">
      <header>
        <h1>{shown.name}</h1>
        <ModelFacts model={shown} />
        <About model={shown} />
      </header>
      {problem.value && (
        <>
          <Notice kind="problem">{problem.value}</Notice>
          <button type="button" class="again" onClick={() => setTries(tries + 1)}>
            <Icon name="retry" /> Try again
          </button>
        </>
      )}
      <Runs model={shown} />
    </main>
  );
}

function About({ model }: { model: ModelInfo }) {
  const facts = Object.entries(model.about);
  if (!facts.length) return null;
  return (
    <dl class="about">
      {facts.map(([name, value]) => (
        <div key={name}>
          <dt>{words(name.replace(/^val_/, "held-out "))}</dt>
          <dd>{Number.isFinite(Number(value)) ? figure(Number(value)) : value}</dd>
        </div>
      ))}
    </dl>
  );
}

function NoRun() {
  return (
    <Notice kind="info">
      No run folder was given for this model, so there are no curves. Start the studio with the folder that heptapod train wrote.
    </Notice>
  );
}

const NAMES: Record<string, string> = { model: "The model", tokenizer: "Its tokenizer" };

function Runs({ model }: { model: ModelInfo }) {
  const answer = answers.value[model.name];
  if (!model.has_run) return <NoRun />;
  if (!answer) return problem.value ? null : <p role="status">Loading …</p>;
  const run = answer.runs.find((one) => one.stage === stage.value) ?? answer.runs[0];
  return (
    <>
      {answer.runs.length > 1 && (
        <Segments
          label="Whose training"
          value={run?.stage ?? ""}
          options={answer.runs.map(({ stage }) => [stage, NAMES[stage] ?? stage])}
          onChange={(value) => (stage.value = value)}
        />
      )}
      {run ? <Training key={`${model.name}/${run.stage}`} run={run} model={model} /> : <NoRun />}
      <Evaluations evaluations={answer.evaluations} model={model} />
    </>
  );
}
