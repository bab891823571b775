// A dashboard as Grafana's own types have it. A file made of a dashboard's JSON is checked against `Page`: an unknown key, a
// missing one or a word that Grafana does not know is a fault. Names of fields in overrides, and queries, are no types.
import type { AnnotationQuery, Dashboard, FieldConfig, Panel, RowPanel, VariableModel } from "@grafana/schema";
import type { Options as Gauge } from "@grafana/schema/dist/esm/raw/composable/gauge/panelcfg/x/GaugePanelCfg_types.gen";
import type { Options as Heatmap } from "@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen";
import type { PrometheusDataQuery } from "@grafana/schema/dist/esm/raw/composable/prometheus/dataquery/x/PrometheusDataQuery_types.gen";
import type { Options as Stat } from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type { Options as Timeline } from "@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen";
import type { Options as Table } from "@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen";
import type { FieldConfig as SeriesField, Options as Series } from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";
import type { Options as XYChart } from "@grafana/schema/dist/esm/raw/composable/xychart/panelcfg/x/XYChartPanelCfg_types.gen";

/** The same type as JSON has it: members of enumerations are their words and numbers. */
type Json<T> = T extends string ? `${T}`
  : T extends number ? (`${T}` extends `${infer N extends number}` ? N : number)
  : T extends boolean | null | undefined ? T
  : T extends (infer U)[] ? Json<U>[]
  : T extends object ? { [K in keyof T]: Json<T[K]> }
  : T;

type Target = Json<PrometheusDataQuery> & { datasource: { type: "prometheus"; uid: "${datasource}" } };

interface Options {
  timeseries: Series;
  stat: Stat;
  gauge: Gauge;
  "state-timeline": Timeline;
  heatmap: Heatmap;
  table: Table;
  xychart: XYChart;
}

type Chart<K extends keyof Options> = Omit<Json<Panel>, "type" | "options" | "targets" | "fieldConfig" | "id" | "gridPos"> & {
  type: K;
  title: string;
  description: string;
  id: number;
  gridPos: Json<NonNullable<Panel["gridPos"]>>;
  options: Json<Partial<Options[K]>>;
  targets: Target[];
  fieldConfig: {
    defaults: Omit<Json<FieldConfig>, "custom"> & (K extends "timeseries" ? { custom: Json<SeriesField> } : { custom?: undefined });
    overrides: Json<NonNullable<Panel["fieldConfig"]>["overrides"]>;
  };
};

type AnyChart = { [K in keyof Options]: Chart<K> }[keyof Options];
type Row = Omit<Json<RowPanel>, "panels"> & { panels: AnyChart[] };
/** What the Prometheus datasource takes of an annotation is no part of the schema. */
type Mark = Json<AnnotationQuery> & { expr: string; step: string; titleFormat: string; textFormat: string; tagKeys: string; useValueForTime: boolean };
/** Nor are the settings of the kinds of variables. */
type Variable = Json<VariableModel> & { definition?: string; filters?: never[] };

/** One dashboard. */
export type Page = Omit<Json<Dashboard>, "id" | "panels" | "templating" | "annotations"> & {
  id: null;
  uid: string;
  panels: (AnyChart | Row)[];
  templating: { list: Variable[] };
  annotations: { list: Mark[] };
};
