import { createHash } from 'node:crypto';
import react from '@vitejs/plugin-react';
import type { Plugin } from 'vite';
import { defineConfig } from 'vitest/config';

// Cloudscape's style sheet carries its fonts as data: URLs, which the pages' policy does not
// allow and which every first load would pay for: they become files, loaded when used.
const fontFiles: Plugin = {
  name: 'font-files',
  generateBundle(_, bundle) {
    for (const file of Object.values(bundle)) {
      if (file.type !== 'asset' || !file.fileName.endsWith('.css')) continue;
      file.source = String(file.source).replace(/url\(["']?data:font\/woff2[^,]*;base64,([A-Za-z0-9+/=]+)["']?\)/g, (_, data: string) => {
        const source = Buffer.from(data, 'base64');
        const fileName = `assets/font-${createHash('sha256').update(source).digest('hex').slice(0, 8)}.woff2`;
        this.emitFile({ type: 'asset', fileName, source });
        return `url(/console/${fileName})`;
      });
    }
  },
};

// The build goes into the Go package that embeds it. Nothing is inlined: the
// pages are served under a policy that allows no inline script or style.
export default defineConfig({
  base: '/console/',
  plugins: [react(), fontFiles],
  build: {
    outDir: '../internal/console/dist',
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: 'es2022',
    chunkSizeWarningLimit: 1500,
    rolldownOptions: { input: { index: 'index.html', portal: 'portal.html' } },
  },
  test: { include: ['test/**/*.test.{ts,tsx}'], reporters: ['tap-flat'] },
  server: { proxy: { '/console/signin': 'http://127.0.0.1:8443' } },
});
