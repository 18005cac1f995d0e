import react from '@vitejs/plugin-react';
import { defineConfig } from 'vite';

// The build goes into the Go package that embeds it. Nothing is inlined: the
// pages are served under a policy that allows no inline script or style.
export default defineConfig({
  base: '/console/',
  plugins: [react()],
  build: {
    outDir: '../internal/console/dist',
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: 'es2022',
    chunkSizeWarningLimit: 1500,
    rolldownOptions: { input: { index: 'index.html', portal: 'portal.html' } },
  },
  server: { proxy: { '/console/signin': 'http://127.0.0.1:8443' } },
});
