export const workspaces: Record<string, string> = {};
