export const portal: Record<string, string> = {};
