import { render } from "preact";
import { App } from "./app";
import "./style/base.css";
import "./style/controls.css";
import "./style/generate.css";

render(<App />, document.getElementById("app")!);
