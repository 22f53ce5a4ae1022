// The figures of an instance that `/1.0/usage` tells, and the charts that they make.

/**
 * A chart a line: the figures in it, the first with its area filled, and how they are written. `limit` is drawn dashed;
 * a `quiet` chart is there only where something in it ever was more than 0.
 */
export const CHARTS = [
  {
    title: 'chart.cpu', unit: 'cores',
    series: [
      { figure: 'cpu', label: 'figure.cpu' },
      { figure: 'cpu_user', label: 'figure.cpu_user' },
      { figure: 'cpu_system', label: 'figure.cpu_system' },
      { figure: 'cpu_limit', label: 'figure.cpu_limit', limit: true },
    ],
  },
  {
    title: 'chart.memory', unit: 'bytes',
    series: [
      { figure: 'memory', label: 'figure.memory' },
      { figure: 'memory_cached', label: 'figure.memory_cached' },
      { figure: 'swap', label: 'figure.swap' },
      { figure: 'memory_limit', label: 'figure.memory_limit', limit: true },
    ],
  },
  {
    title: 'chart.disk', unit: 'bytesPerSecond',
    series: [
      { figure: 'disk_read', label: 'figure.disk_read' },
      { figure: 'disk_written', label: 'figure.disk_written' },
    ],
  },
  {
    title: 'chart.network', unit: 'bytesPerSecond',
    series: [
      { figure: 'network_received', label: 'figure.network_received' },
      { figure: 'network_sent', label: 'figure.network_sent' },
    ],
  },
  {
    title: 'chart.pressure', unit: 'ratio',
    series: [
      { figure: 'pressure_cpu', label: 'figure.pressure_cpu' },
      { figure: 'pressure_memory', label: 'figure.pressure_memory' },
      { figure: 'pressure_io', label: 'figure.pressure_io' },
      { figure: 'cpu_throttled', label: 'figure.cpu_throttled' },
    ],
  },
  {
    title: 'chart.operations', unit: 'perSecond',
    series: [
      { figure: 'disk_reads', label: 'figure.disk_reads' },
      { figure: 'disk_writes', label: 'figure.disk_writes' },
    ],
  },
  {
    title: 'chart.filesystem', unit: 'bytes',
    series: [
      { figure: 'filesystem_used', label: 'figure.filesystem_used' },
      { figure: 'filesystem_size', label: 'figure.filesystem_size', limit: true },
    ],
  },
  { title: 'chart.processes', unit: 'count', series: [{ figure: 'processes', label: 'figure.processes' }] },
  {
    title: 'chart.trouble', unit: 'perSecond', quiet: true,
    series: [
      { figure: 'network_errors', label: 'figure.network_errors' },
      { figure: 'oom_kills', label: 'figure.oom_kills' },
    ],
  },
];
