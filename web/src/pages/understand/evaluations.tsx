/** What heptapod evaluate found: a metric over the steps of sampling, and all numbers. */

import { useMemo, useState } from "preact/hooks";
import type { Evaluation, ModelInfo } from "../../api/types";
import { figure, goal, qualityLines, words } from "../../logic/curves";
import { Chart } from "../../ui/chart";
import { SelectField } from "../../ui/fields";

export function Evaluations({ evaluations, model }: { evaluations: Evaluation[]; model: ModelInfo }) {
  const metrics = useMemo(() => [...new Set(evaluations.flatMap((one) => Object.keys(one.metrics)))], [evaluations]);
  const [chosen, setChosen] = useState("");
  const metric = metrics.includes(chosen) ? chosen : (metrics[0] ?? "");
  const cells = model.grid[0] * model.grid[1];
  const lines = useMemo(() => qualityLines(evaluations, metric, cells), [evaluations, metric, cells]);
  return (
    <section class="evaluations" aria-labelledby="evaluations">
      <h2 id="evaluations">Quality against steps</h2>
      {metrics.length ? (
        <>
          <div class="metric">
            <SelectField label="Metric" value={metric} onChange={setChosen} options={metrics.map((name) => [name, words(name)])} />
          </div>
          <Chart title={[words(metric), goal(metric)].filter(Boolean).join(", ")} lines={lines} xName="steps of sampling" logX points height={280} />
          <Table {...{ evaluations, metrics, cells }} />
        </>
      ) : (
        <p class="quiet">
          No evaluations were found for this run. heptapod evaluate writes them; one for each number of steps makes a curve.
        </p>
      )}
    </section>
  );
}

function Table({ evaluations, metrics, cells }: { evaluations: Evaluation[]; metrics: string[]; cells: number }) {
  return (
    <div class="table" tabIndex={0} role="region" aria-label="All evaluations">
      <table>
        <thead>
          <tr>
            {["name", "steps", "order", "temperature", "images", "reference", ...metrics.map(words)].map((head) => (
              <th key={head} scope="col">
                {head}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {evaluations.map((one) => (
            <tr key={one.name}>
              <th scope="row">{one.name}</th>
              <td class="number">{one.steps ?? cells}</td>
              <td>{one.token_order ?? "own"}</td>
              <td class="number">{one.temperature ?? "own"}</td>
              <td class="number">{one.count.toLocaleString("en")}</td>
              <td>{one.reference}</td>
              {metrics.map((metric) => (
                <td key={metric} class="number">
                  {metric in one.metrics ? figure(one.metrics[metric]!) : "–"}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
